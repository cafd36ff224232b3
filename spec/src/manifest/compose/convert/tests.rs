use std::sync::Arc;

use super::super::{ComposeInput, ComposeProject, FileState, Step, load};
use super::{ConvertError, docker_run};

fn project(text: &str) -> ComposeProject {
    let mut input = ComposeInput {
        files: vec!["c".into()],
        project_dir: "/p".into(),
        home: "/root".into(),
        ..ComposeInput::default()
    };
    input.contents.insert("c".into(), FileState::Content(Arc::from(text.as_bytes())));
    input.contents.insert("vars.env".into(), FileState::Content(Arc::from(b"A=1".as_slice())));
    input.contents.insert(".env".into(), FileState::Missing);
    match load(&input) {
        Step::Done(project, found) => {
            assert!(!found.iter().any(crate::diagnostic::Diagnostic::is_error), "{text}\n{found:#?}");
            *project
        }
        Step::Need(paths) => panic!("{paths:?} are wanted"),
    }
}

#[test]
fn an_everyday_line() {
    let line = "sudo docker run -d --name my-db -p 127.0.0.1:5432:5432 -e POSTGRES_PASSWORD='pa$$ word' -e MODE \\\n  -v pgdata:/var/lib/postgresql/data -v \"$PWD/init\":/init:ro --restart=unless-stopped -m 512m --cpus 1.5 \\\n  --health-cmd 'pg_isready -U postgres' --health-interval=10s --shm-size 128m postgres:16 -c max_connections=50";
    let converted = docker_run(line).expect("converts");
    let expected = "services:\n  my-db:\n    image: \"postgres:16\"\n    container_name: my-db\n    command:\n      - \"-c\"\n      - max_connections=50\n    ports:\n      - \"127.0.0.1:5432:5432\"\n    environment:\n      - POSTGRES_PASSWORD=pa$$$$ word\n      - MODE\n    volumes:\n      - \"pgdata:/var/lib/postgresql/data\"\n      - \"./init:/init:ro\"\n    restart: unless-stopped\n    mem_limit: \"512m\"\n    cpus: 1.5\n    healthcheck:\n      test: pg_isready -U postgres\n      interval: \"10s\"\n    shm_size: \"128m\"\nvolumes:\n  pgdata:\n    name: pgdata\n";
    assert_eq!(converted.text, expected);
    let project = project(&converted.text);
    let crate::pod::EnvSource::Literal(password) = &project.workloads[0].template.spec.containers[0].env[0].source
    else {
        panic!("a literal")
    };
    assert_eq!(password, "pa$$ word");
}

#[test]
fn every_flag_loads() {
    #[rustfmt::skip]
    let cases = [
        "-it --rm alpine sh", "-itd alpine", "-p80:80 -p 81:81/udp --publish=82:82 nginx", "-eA=1 --env B=2 --env-file vars.env x", "--net host x", "--network none x", "--network mynet --network-alias a --ip 10.0.0.5 x", "--network name=n,alias=q x", "--network-alias a x",
        "-u 1000:1000 -w /app --hostname h --domainname d x", "--entrypoint /bin/sh x -c 'echo $HOME'", "--entrypoint '' x", "--cap-add NET_ADMIN --cap-drop ALL --privileged --read-only x", "--security-opt no-new-privileges --security-opt seccomp=unconfined x",
        "--mount type=bind,source=/a,target=/b,readonly --mount type=volume,src=v,dst=/v,volume-nocopy --mount type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=1777 --mount src=w,dst=/w x", "--tmpfs /run --tmpfs /tmp:size=1m x", "-v /anon -v named:/n -v ~/h:/h -v ./r:/r x", "-v $(pwd):/app -w /app node npm test",
        "-m 1g --memory-reservation 512m --memory-swap 2g --cpus=.5 --cpu-shares 512 --cpuset-cpus 0-1 --pids-limit 100 --oom-score-adj 10 --blkio-weight 100 x", "--cpu-quota 50000 --cpu-period 100000 x", "-l a=b --label c x", "--annotation a=b x", "--add-host h:1.2.3.4 --add-host host.docker.internal:host-gateway --dns 1.1.1.1 --dns-search x.y --dns-option ndots:2 x",
        "--health-cmd 'curl -f http://localhost' --health-interval 5s --health-timeout 3s --health-retries 3 --health-start-period 10s --health-start-interval 1s x", "--no-healthcheck x", "--init --ulimit nofile=1024:2048 --ulimit nproc=10 --device /dev/a:/dev/b:rw --gpus all x", "--gpus 2 x", "--gpus '\"device=0,1\"' x", "--shm-size 1g --log-driver json-file --log-opt max-size=10m --log-opt max-file=3 x",
        "--pull always --platform linux/arm64 --stop-signal SIGINT --stop-timeout 30 x", "--sysctl net.core.somaxconn=1024 --group-add 10 --ipc host --pid host --userns host --cgroupns host --runtime runc x", "--restart on-failure:3 -P -d x", "--link db:database x", "--expose 80 --mac-address 02:42:ac:11:00:02 x", "-- x", "--tty=false x",
        "-d \\\n -p 80:80 \\\n nginx", "--storage-opt size=1G x",
        "--name web --replace --rm --cgroups=split --sdnotify=conmon -d --cidfile=/run/web.cid x", "--conmon-pidfile /run/p --tz Europe/Berlin --secret a --pod p --env-host --health-on-failure kill --requires=a,b x",
        "--network a --network name=b,alias=c,ip=10.0.0.5 --network-alias d x", "--healthcheck-command '[\"CMD\", \"/check\"]' --healthcheck-interval 5s x",
    ];
    for line in cases {
        let converted = docker_run(&format!("docker run {line}")).expect(line);
        assert_eq!(project(&converted.text).workloads.len(), 1, "{line}");
    }
    assert!(docker_run("podman run x").is_ok() && docker_run("docker container run x").is_ok());
    assert_eq!(docker_run("docker run ghcr.io/a/b-c:1@sha256:00").expect("converts").name, "b-c");
}

#[test]
fn flags_of_podman_are_dropped_or_noted() {
    let flags = "--replace --cgroups=split --sdnotify=conmon --conmon-pidfile=/p --tz=UTC --secret=key --env-host \
                 --requires=db --health-on-failure=kill --env-host=false";
    let converted = docker_run(&format!("podman run {flags} x")).expect("converts");
    assert_eq!(converted.text, "services:\n  x:\n    image: x\n    environment:\n      - TZ=UTC\n");
    let left_out: Vec<&str> = converted.notes.iter().filter_map(|note| note.split(" was left out: ").next()).collect();
    assert_eq!(left_out, ["`--secret key`", "`--env-host`", "`--requires db`", "`--health-on-failure kill`"]);
    let converted = docker_run("podman run --health-cmd '[\"CMD\",\"/a\"]' x").expect("converts");
    assert!(converted.text.ends_with("      test:\n        - CMD\n        - /a\n"), "{}", converted.text);
}

#[test]
fn each_network_has_its_own_options() {
    let line = "docker run --network a --network name=b,alias=c,ip6=fd00::2,foo=1 --network-alias d --ip 10.0.0.5 x";
    let converted = docker_run(line).expect("converts");
    let expected = "    networks:\n      a:\n        aliases:\n          - d\n        ipv4_address: \"10.0.0.5\"\n      b:\n        aliases:\n          - c\n        ipv6_address: \"fd00::2\"\n";
    assert!(converted.text.contains(expected), "{}", converted.text);
    assert_eq!(converted.notes, ["`foo=1` of `--network` was left out"]);
}

#[test]
fn volumes_and_networks_keep_what_no_command_line_says() {
    let words = ["docker", "run", "-v", "v:/v", "-v", "w:/w", "--network", "n", "x"].map(str::to_owned);
    let mut line = super::RunLine::parse(&words).expect("valid");
    let options = [("type", "none"), ("o", "bind"), ("device", "/srv/v")];
    line.volumes.insert("v".to_owned(), options.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let special = super::RunNetwork { subnet: Some("10.9.0.0/24".to_owned()), internal: true, ipv6: true };
    line.networks.insert("n".to_owned(), special);
    let converted = line.convert().expect("converts");
    let expected = "volumes:\n  v:\n    name: v\n    driver_opts:\n      device: /srv/v\n      o: bind\n      type: none\n  w:\n    name: w\nnetworks:\n  \"n\":\n    name: \"n\"\n    internal: true\n    enable_ipv6: true\n    ipam:\n      config:\n        - subnet: \"10.9.0.0/24\"\n";
    assert!(converted.text.ends_with(expected), "{}", converted.text);
    let project = project(&converted.text);
    let network = project.networks.first().expect("a network");
    assert!(network.internal && network.ipv6 && network.subnets == ["10.9.0.0/24"], "{network:?}");
}

#[test]
fn faults() {
    #[rustfmt::skip]
    let cases = [
        ("docker ps", "this is not a `docker run` command"), ("", "this is not a `docker run` command"), ("docker run", "the image is missing"), ("docker run -p", "`-p` needs a value"),
        ("docker run --naem x y", "`--naem` is not a flag of `docker run`; did you mean `--name`?"), ("docker run -Z x", "`-Z` is not a flag of `docker run`"), ("docker run --ulimit x y", "`x` is not a value of `--ulimit`: it is NAME=SOFT[:HARD]"),
        ("docker run --volumes-from x y", "`--volumes-from` cannot be converted: name the same volumes in both services"), ("docker run -e A=$(date) x", "the output of `date` is not known: write the value itself"), ("docker run x | cat", "`|` joins several commands: give one `docker run` only"), ("docker run 'x", "a quote is not closed"),
        ("docker run --mount type=bind,foo=1 x", "`type=bind,foo=1` is not a value of `--mount`: it has no option `foo`"), ("docker run --network container:a x", "`container:a` is not a value of `--network`: put the other container into the same project and write `network_mode: service:NAME`"),
    ];
    for (line, expected) in cases {
        let error = docker_run(line).expect_err(line);
        assert_eq!(error.to_string(), expected, "{line}");
    }
    assert_eq!(docker_run("docker run"), Err(ConvertError::NoImage));
}
