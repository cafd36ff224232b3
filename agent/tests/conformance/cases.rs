//! The cases. Each begins with a runtime that has no pod, and leaves removing to its caller.

use std::pin::Pin;
use std::time::{Duration, Instant};

use runtime::api::{FailureClass, StopScope};
use spec::observed::{PodFailure, PodFailureReason};

use crate::world::World;

type Case = for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Name, whether real containers are needed, case.
pub(crate) const ALL: &[(&str, bool, Case)] = &[
    ("pods-are-made-and-removed-once", false, |world| Box::pin(pods_are_made_and_removed_once(world))),
    ("a-container-runs-until-it-is-stopped", false, |world| Box::pin(a_container_runs_until_it_is_stopped(world))),
    ("an-end-has-its-code", false, |world| Box::pin(an_end_has_its_code(world))),
    ("alone-is-not-with-its-pod", false, |world| {
        Box::pin(one_that_ends_without_its_pod_is_not_said_to_have_been_stopped(world))
    }),
    ("who-does-not-stop-is-killed", false, |world| Box::pin(who_does_not_stop_is_killed(world))),
    ("a-program-that-is-missing-has-ended", false, |world| Box::pin(a_program_that_is_missing_has_ended(world))),
    ("an-end-is-hinted-at", false, |world| Box::pin(an_end_is_hinted_at(world))),
    ("another-agent-finds-everything", false, |world| Box::pin(another_agent_finds_everything(world))),
    ("marks-stay", false, |world| Box::pin(marks_stay(world))),
    ("what-is-not-there-is-gone", false, |world| Box::pin(what_is_not_there_is_gone(world))),
    ("commands-and-signals-reach-it", true, |world| Box::pin(commands_and_signals_reach_it(world))),
    ("a-lost-shim-is-an-end", true, |world| Box::pin(a_lost_shim_is_an_end(world))),
    ("readings-are-taken", true, |world| Box::pin(readings_are_taken(world))),
];

const GRACE: Duration = Duration::from_secs(10);

async fn pods_are_made_and_removed_once(world: &mut World) {
    let record = world.record("run").await;
    assert!(world.inspect(&record).await.is_none());
    world.runtime.check_pod(record.clone()).await.expect("it could be made");
    assert!(world.inspect(&record).await.is_none(), "a check makes nothing");
    for _ in 0..2 {
        world.runtime.create_pod(record.clone(), Default::default()).await.expect("made");
        let listed = world.runtime.list().await.expect("listed");
        assert_eq!(listed.iter().map(|pod| &pod.record.uid).collect::<Vec<_>>(), [&record.uid]);
        assert!(listed.iter().all(|pod| pod.sandbox && pod.containers.is_empty() && pod.failed.is_none()));
        assert_eq!(listed.first().map(|pod| pod.record.spec.clone()), Some(record.spec.clone()));
    }
    for _ in 0..2 {
        world.runtime.remove_pod(&record.uid).await.expect("removed");
        assert!(world.inspect(&record).await.is_none());
    }
}

async fn a_container_runs_until_it_is_stopped(world: &mut World) {
    let pod = world.pod("run").await;
    let first = world.start(&pod, 0).await;
    assert!(first.is_running() && first.attempt == 0, "{first:?}");
    assert_eq!(world.start(&pod, 0).await, first, "the same attempt is left as it is");
    assert_eq!(world.container(&pod).await, first);
    for _ in 0..2 {
        world.runtime.stop_container(&pod.uid, "main", GRACE, StopScope::Pod).await.expect("stopped");
        let facts = world.container(&pod).await;
        let exit = facts.exit().expect("an end");
        assert_eq!((exit.code, exit.signal, exit.oom, facts.attempt), (0, None, false, 0));
        assert!(exit.stopped && !exit.succeeded(), "{exit:?}");
        assert!(exit.started.is_some_and(|started| started <= exit.finished), "{exit:?}");
    }
    let again = world.start(&pod, 0).await;
    assert!(!again.is_running(), "an attempt that has ended is never started again");
}

async fn an_end_has_its_code(world: &mut World) {
    let pod = world.pod("exit-7-50").await;
    for attempt in 0..2 {
        assert!(world.start(&pod, attempt).await.is_running());
        let facts = world.ended(&pod).await;
        let exit = facts.exit().expect("an end");
        assert_eq!((facts.attempt, exit.code, exit.signal, exit.error.clone()), (attempt, 7, None, None));
        assert!(!exit.stopped, "{exit:?}");
    }
}

async fn one_that_ends_without_its_pod_is_not_said_to_have_been_stopped(world: &mut World) {
    let pod = world.pod("run").await;
    assert!(world.start(&pod, 0).await.is_running());
    world.runtime.stop_container(&pod.uid, "main", GRACE, StopScope::Container).await.expect("stopped");
    let facts = world.container(&pod).await;
    assert_eq!(facts.exit().map(|exit| (exit.code, exit.stopped)), Some((0, false)));
}

async fn who_does_not_stop_is_killed(world: &mut World) {
    let pod = world.pod("stubborn").await;
    assert!(world.start(&pod, 0).await.is_running());
    let (begin, grace) = (Instant::now(), Duration::from_millis(400));
    world.runtime.stop_container(&pod.uid, "main", grace, StopScope::Pod).await.expect("stopped");
    assert!(begin.elapsed() >= grace, "it has its time: {:?}", begin.elapsed());
    let facts = world.container(&pod).await;
    assert_eq!(facts.exit().map(|exit| (exit.code, exit.signal)), Some((137, Some(9))));
}

async fn a_program_that_is_missing_has_ended(world: &mut World) {
    let pod = world.pod("broken").await;
    let facts = world.start(&pod, 0).await;
    let exit = facts.exit().expect("an attempt that has ended");
    assert_eq!((exit.code, exit.started), (127, None));
    assert!(exit.error.as_ref().is_some_and(|why| !why.is_empty()));
    assert_eq!(world.container(&pod).await, facts);
}

async fn an_end_is_hinted_at(world: &mut World) {
    let mut events = world.runtime.events();
    let pod = world.pod("exit-7-50").await;
    world.start(&pod, 0).await;
    world.hinted(&mut events, &pod).await;
    assert!(!world.ended(&pod).await.is_running());
}

async fn another_agent_finds_everything(world: &mut World) {
    let (running, ended) = (world.pod("run").await, world.pod("exit-7-50").await);
    let before = world.start(&running, 0).await;
    world.start(&ended, 0).await;
    let over = world.ended(&ended).await;
    world.restart();
    assert_eq!(world.runtime.list().await.expect("listed").len(), 2);
    assert_eq!((world.container(&running).await, world.container(&ended).await), (before.clone(), over));
    assert_eq!(world.start(&running, 0).await, before, "it is not started twice");
    world.runtime.stop_container(&running.uid, "main", GRACE, StopScope::Pod).await.expect("stopped");
    assert_eq!(world.container(&running).await.exit().map(|exit| exit.code), Some(0));
}

async fn marks_stay(world: &mut World) {
    let pod = world.pod("exit-7-50").await;
    world.start(&pod, 0).await;
    world.runtime.mark_unhealthy(&pod.uid, "main", 0).await.expect("marked");
    assert!(world.ended(&pod).await.unhealthy);
    for reason in [PodFailureReason::Evicted, PodFailureReason::DeadlineExceeded] {
        let failure = PodFailure { reason, message: String::new() };
        world.runtime.fail_pod(&pod.uid, &failure).await.expect("written");
        world.restart();
        let failed = world.inspect(&pod).await.expect("a pod").failed.expect("it has failed");
        assert_eq!(failed.reason, PodFailureReason::Evicted, "what was written first stays");
    }
}

async fn what_is_not_there_is_gone(world: &mut World) {
    let record = world.record("run").await;
    world.runtime.stop_container(&record.uid, "main", GRACE, StopScope::Pod).await.expect("nothing to stop");
    world.runtime.remove_pod(&record.uid).await.expect("nothing to remove");
    let pod = world.pod("run").await;
    world.runtime.stop_container(&pod.uid, "main", GRACE, StopScope::Pod).await.expect("nothing to stop");
    world.runtime.stop_container(&pod.uid, "other", GRACE, StopScope::Pod).await.expect("nothing to stop");
}

async fn commands_and_signals_reach_it(world: &mut World) {
    let pod = world.pod("run").await;
    world.start(&pod, 0).await;
    let run = async |script: &str, limit| {
        let command = ["sh", "-c", script].map(str::to_owned);
        world.runtime.exec(&pod.uid, "main", &command, limit).await
    };
    let said = run("echo out; exit 5", GRACE).await.expect("it ran");
    assert_eq!((said.code, said.output.as_slice()), (Some(5), b"out\n".as_slice()));
    let late = run("echo begun; sleep 100", Duration::from_millis(300)).await.expect("it was ended");
    assert_eq!((late.code, late.output.as_slice()), (None, b"begun\n".as_slice()));
    let missing = ["/no/such/program"].map(str::to_owned);
    let error = world.runtime.exec(&pod.uid, "main", &missing, GRACE).await.expect_err("there is none");
    assert_eq!(error.class, FailureClass::Permanent, "{error:?}");
    assert!(world.container(&pod).await.is_running(), "a command that was ended takes nothing along");
    world.runtime.signal_container(&pod.uid, "main", 15).await.expect("sent");
    assert_eq!(world.ended(&pod).await.exit().map(|exit| exit.code), Some(0));
    assert!(world.logs(&pod).is_some_and(|text| text.contains(" stdout F ended")));
    world.runtime.signal_container(&pod.uid, "main", 15).await.expect_err("it does not run");
    run("true", GRACE).await.expect_err("it does not run");
}

async fn a_lost_shim_is_an_end(world: &mut World) {
    let mut events = world.runtime.events();
    let pod = world.pod("run").await;
    let facts = world.start(&pod, 0).await;
    let spec::observed::ContainerState::Running { pid, .. } = facts.state else { panic!("{facts:?}") };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let parent = stat.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().nth(1)?.parse().ok());
    let shim = nix::unistd::Pid::from_raw(parent.expect("a parent"));
    nix::sys::signal::kill(shim, nix::sys::signal::SIGKILL).expect("it lives");
    world.hinted(&mut events, &pod).await;
    let facts = world.ended(&pod).await;
    let exit = facts.exit().expect("an end");
    assert_eq!(exit.code, 137);
    assert!(exit.error.as_ref().is_some_and(|why| why.starts_with("lost")), "{exit:?}");
    assert!(world.start(&pod, 1).await.is_running(), "the next attempt is not disturbed by it");
}

async fn readings_are_taken(world: &mut World) {
    let pod = world.pod("run").await;
    world.start(&pod, 0).await;
    let stats = world.runtime.stats(&pod.uid, "main").await.expect("readings");
    assert!(stats.pids >= 1 && stats.memory_bytes > 0 && stats.cpu_nanos > 0, "{stats:?}");
    assert_eq!(world.runtime.network_stats(&pod.uid).await.expect("readings"), None);
    world.runtime.disk_usage(&pod.uid).await.expect("readings");
}
