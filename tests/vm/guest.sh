#!/bin/bash
# Runs inside of the machine at each boot: one phase a boot, in order. Lines that begin with OK or FAIL are the result.
# Nothing here is allowed to hang: every wait has an end.
cd /opt/vm || exit 1
export HOME=/root
phase=$(cat phase 2>/dev/null || echo 1)
cuts=$(cat cuts 2>/dev/null || echo 4)

ok() { printf 'OK   %s\n' "$*"; }
fail() { printf 'FAIL %s\n' "$*"; }
info() { printf 'INFO %s\n' "$*"; }
check() { # NAME COMMAND...
  local name=$1
  shift
  if "$@" >/tmp/check.out 2>&1; then ok "$name"; else fail "$name: $(tail -n 3 /tmp/check.out | tr '\n' ' ')"; fi
}
soon() { # SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.3
  done
}
# Which version of a pod answers.
version_at() { curl -s -m 5 "http://127.0.0.1:$1/" | grep -oE 'version-[0-9]+' | head -n 1; }
active() { [ "$(systemctl is-active "$1")" = active ]; }
inactive() { [ "$(systemctl is-active "$1")" = inactive ]; }
# "pid start-time" of every process of a container, as the kernel has it.
group=/sys/fs/cgroup/system.slice/mainstay-pods.service/pods
containers() {
  local pid
  for pid in $(cat "$group"/pod*/*/cgroup.procs | sort -n); do
    printf '%s %s\n' "$pid" "$(sed 's/.*) //' "/proc/$pid/stat" | cut -d' ' -f20)"
  done
}
main_pid() { systemctl show -P MainPID mainstay.service; }
next() { # reboot | poweroff | cut SECONDS
  echo $((phase + 1)) >phase
  sync
  case $1 in
    cut) echo "VM-CUT $2" ;;
    *) systemctl "$1" ;;
  esac
  sleep 600
}
pod() { # NAME PORT TEXT [MEMORY]
  cat <<EOF
apiVersion: v1
kind: Pod
metadata: {name: $1}
spec:
  terminationGracePeriodSeconds: 5
  containers:
    - name: web
      image: mainstay.local/web:1
      env: [{name: GREETING, value: "$3"}]
      ports: [{containerPort: 8080, hostPort: $2}]
      resources: {limits: {memory: ${4:-64Mi}, cpu: 500m}}
EOF
}
answers() { curl -s -m 5 -o /dev/null "http://127.0.0.1:$1/"; }

# Tests with containers of their own; each name they print is a result.
run_tests() {
  dpkg -x new.deb new
  for test in build/deps/*; do
    [ -x "$test" ] || continue
    MAINSTAY_BIN=/opt/vm/new/usr/bin/mainstay timeout 1200 "$test" --test-threads=1 >"$test.log" 2>&1
    sed -nE "s/^test (.*) \.\.\. ok( .*)?\$/OK   $(basename "$test"): \1/p; s/^test (.*) \.\.\. FAILED( .*)?\$/FAIL $(basename "$test"): \1/p; s/^skipped: /FAIL skipped: /p" "$test.log"
    grep -q '^test result: ok' "$test.log" || grep -A 6 'panicked at' "$test.log" | cut -c 1-300 | sed 's/^/INFO /'
  done
}

# What is there of each pod, by kind; two pods run, so there must be two of each and nothing else.
counts() {
  local data=/var/lib/mainstay
  printf '%s records, ' "$(find $data/pods -maxdepth 2 -name pod.json | wc -l)"
  printf '%s directories, ' "$(find $data/pods -mindepth 1 -maxdepth 1 | wc -l)"
  printf '%s leases, ' "$(find $data/network/leases -type f | wc -l)"
  printf '%s interfaces, ' "$(ip -br link show type veth | wc -l)"
  printf '%s groups, ' "$(find "$group" -mindepth 1 -maxdepth 1 -name 'pod*' | wc -l)"
  printf '%s half-written files' "$(find $data -name '*.tmp*' -o -name '.tmp*' | wc -l)"
}
whole="2 records, 2 directories, 2 leases, 2 interfaces, 2 groups, 0 half-written files"

echo "PHASE $phase"
case $phase in
  tests) # Nothing else.
    info "$(uname -r), cgroup $(stat -fc %T /sys/fs/cgroup), AppArmor $(cat /sys/module/apparmor/parameters/enabled)"
    run_tests
    echo VM-DONE
    systemctl poweroff
    sleep 600
    ;;
  quick) # Only what is needed for a reboot and power cuts.
    check "the package installs" dpkg -i old.deb
    pod a 8081 version-0 >/etc/mainstay/manifests/a.yaml
    pod b 8082 version-0 >/etc/mainstay/manifests/b.yaml
    check "two pods answer" soon 240 eval 'answers 8081 && answers 8082'
    phase=1
    next reboot
    ;;
  1) # Install, run, watchdog, reload, upgrade and downgrade.
    info "$(uname -r), $(systemctl --version | head -n 1), cgroup $(stat -fc %T /sys/fs/cgroup)"
    info "AppArmor $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null || echo absent)"
    check "the package installs" dpkg -i old.deb
    check "the agent runs after the installation" soon 60 active mainstay.service
    check "its status line is shown" soon 120 eval 'systemctl show -P StatusText mainstay.service | grep -q running'
    pod a 8081 version-0 >/etc/mainstay/manifests/a.yaml
    pod b 8082 version-0 >/etc/mainstay/manifests/b.yaml
    check "two pods answer" soon 120 eval 'answers 8081 && answers 8082'
    check "pods are in the unit's control group" test -d "$group"
    limit=$(find "$group" -name memory.max -path '*web*' -exec cat {} + | sort -u | tr '\n' ' ')
    if [ "$limit" = "67108864 " ]; then ok "memory.max is set (cgroup v2)"; else fail "memory.max: $limit"; fi
    quota=$(find "$group" -name cpu.max -path '*web*' -exec cat {} + | sort -u | tr '\n' ' ')
    if [ "$quota" = "50000 100000 " ]; then ok "cpu.max is set (cgroup v2)"; else fail "cpu.max: $quota"; fi
    confined=$(for pid in $(containers | cut -d' ' -f1); do cat "/proc/$pid/attr/current"; done | sort -u | tr '\n' ' ')
    info "AppArmor profile of containers: $confined"
    containers >before
    info "containers: $(tr '\n' ';' <before)"

    check "restart of the agent" systemctl restart mainstay.service
    soon 30 active mainstay.service
    if [ "$(containers)" = "$(cat before)" ]; then ok "a restart leaves containers alone"; else fail "restart: $(containers)"; fi

    kill -9 "$(main_pid)"
    check "the agent is back after kill -9" soon 30 eval 'active mainstay.service && mainstay status >/dev/null 2>&1'
    if [ "$(containers)" = "$(cat before)" ]; then ok "kill -9 leaves containers alone"; else fail "kill: $(containers)"; fi

    pid=$(main_pid)
    check "reload" systemctl reload mainstay.service
    if [ "$(main_pid)" = "$pid" ] && [ "$(containers)" = "$(cat before)" ]; then
      ok "a reload keeps the process and the containers"
    else
      fail "reload: $pid -> $(main_pid)"
    fi
    echo 'no_such_key = 1' >/etc/mainstay/conf.d/50-wrong.toml
    if systemctl reload mainstay.service; then fail "a wrong configuration is taken"; else ok "a wrong configuration is refused"; fi
    if [ "$(main_pid)" = "$pid" ]; then ok "and the agent goes on"; else fail "the agent is another one"; fi
    rm /etc/mainstay/conf.d/50-wrong.toml

    # A loop that is stuck: the process is stopped, so nothing feeds the watchdog.
    mkdir -p /run/systemd/system/mainstay.service.d
    printf '[Service]\nWatchdogSec=5s\n' >/run/systemd/system/mainstay.service.d/watchdog.conf
    systemctl daemon-reload
    systemctl restart mainstay.service
    pid=$(main_pid)
    sleep 12
    if [ "$(main_pid)" = "$pid" ]; then ok "a loop that works is left alone by the watchdog"; else fail "the watchdog ended a working agent"; fi
    kill -STOP "$pid"
    check "the watchdog replaces an agent that is stuck" soon 60 eval '[ "$(main_pid)" != "$pid" ] && [ "$(main_pid)" != 0 ] && active mainstay.service'
    if [ "$(containers)" = "$(cat before)" ]; then ok "and containers are left alone"; else fail "watchdog: $(containers)"; fi
    rm -r /run/systemd/system/mainstay.service.d
    systemctl daemon-reload
    systemctl restart mainstay.service

    (while sleep 0.2; do answers 8081 || echo missed; done >misses 2>&1) &
    asking=$!
    version=$(mainstay version)
    check "dpkg upgrades" dpkg -i new.deb
    check "the new version answers" soon 60 eval 'mainstay status >/dev/null 2>&1'
    info "upgrade: $version -> $(dpkg-query -W -f '${Version}' mainstay), agent $(curl -s --unix-socket /run/mainstay/mainstay.sock http://x/v1/version)"
    if cmp -s "/proc/$(main_pid)/exe" /usr/bin/mainstay; then ok "the agent runs the new binary"; else fail "the agent runs the old binary"; fi
    if [ "$(containers)" = "$(cat before)" ]; then ok "an upgrade keeps PIDs and start times"; else fail "upgrade: $(containers)"; fi
    check "dpkg downgrades" dpkg -i old.deb
    soon 60 eval 'mainstay status >/dev/null 2>&1'
    if cmp -s "/proc/$(main_pid)/exe" /usr/bin/mainstay; then ok "the agent runs the old binary again"; else fail "the downgrade did not take over"; fi
    if [ "$(containers)" = "$(cat before)" ]; then ok "a downgrade keeps PIDs and start times"; else fail "downgrade: $(containers)"; fi
    pid=$(main_pid)
    dpkg-deb -R new.deb bad && printf '#!/bin/sh\nexit 1\n' >bad/usr/bin/mainstay && dpkg-deb -b bad bad.deb >/dev/null
    check "dpkg takes a package whose binary is broken" dpkg -i bad.deb
    info "it says: $(grep -i -A2 'mainstay' /tmp/check.out | tail -n 4 | tr '\n' ' ')"
    if [ "$(main_pid)" = "$pid" ] && active mainstay.service; then ok "the agent of before goes on"; else fail "the agent is gone: $pid -> $(main_pid)"; fi
    if [ "$(containers)" = "$(cat before)" ]; then ok "and containers are left alone"; else fail "broken package: $(containers)"; fi
    rm -r bad bad.deb
    check "dpkg installs a good one over it" dpkg -i old.deb
    soon 60 eval 'mainstay status >/dev/null 2>&1'
    if [ "$(containers)" = "$(cat before)" ]; then ok "which leaves them alone, too"; else fail "after it: $(containers)"; fi
    kill $asking
    if [ -s misses ]; then fail "requests failed: $(wc -l <misses)"; else ok "no request failed meanwhile"; fi

    run_tests

    systemctl stop mainstay.service
    if answers 8081; then ok "pods serve while the agent is stopped"; else fail "pods went with the agent"; fi
    systemctl start mainstay.service
    check "down" mainstay down --yes
    sleep 2
    check "down stays down" inactive mainstay.service
    systemctl start mainstay.service
    check "start brings all back" soon 120 eval 'answers 8081 && answers 8082'
    # What follows is about the new version.
    check "dpkg upgrades again" dpkg -i new.deb
    check "the upgraded agent answers" soon 60 eval 'mainstay status >/dev/null 2>&1'
    # Pods with limits of both kinds are guaranteed what they have; of the unit they have the limits of processes, and those
    # of a new unit only from an agent that was started under it.
    systemctl restart mainstay.service
    soon 60 eval 'mainstay status >/dev/null 2>&1'
    pod a 8081 version-00 >/etc/mainstay/manifests/a.yaml
    check "a pod of the new version" soon 120 eval '[ "$(version_at 8081)" = version-00 ]'
    pid=$(for pid in $(containers | cut -d' ' -f1); do grep -qz 'GREETING=version-00' "/proc/$pid/environ" && echo "$pid"; done | head -n 1)
    score=$(cat "/proc/$pid/oom_score_adj")
    if [ "$score" = -997 ]; then ok "its badness is its class's"; else fail "oom_score_adj: $score"; fi
    limits=$(awk '/^Max (open files|processes|core)/ {print $(NF-2) ":" $(NF-1)}' "/proc/$pid/limits" | tr '\n' ' ')
    info "limits of core, processes, open files: $limits"
    if grep -qE '^Max open files +65536 +524288' "/proc/$pid/limits"; then ok "it may raise its limit of files"; else fail "limits: $limits"; fi
    weight=$(cat "$(dirname "$group$(sed 's/.*\/pods//' "/proc/$pid/cgroup")")/cpu.weight")
    if [ "$weight" = 59 ]; then ok "its part of the CPU is by its limit"; else fail "cpu.weight of the pod: $weight"; fi
    pod a 8081 version-0 >/etc/mainstay/manifests/a.yaml
    check "back to the version of before" soon 120 eval '[ "$(version_at 8081)" = version-0 ]'
    journalctl -u mainstay.service -p warning --no-pager -o cat | tail -n 5 | sed 's/^/INFO journal: /'
    # What was said about one workload is found by its field, with priority and unit.
    entry=$(journalctl _SYSTEMD_UNIT=mainstay.service MAINSTAY_WORKLOAD=Pod/default/a -o json --no-pager -n 1)
    info "entry: $(echo "$entry" | cut -c1-600)"
    case $entry in
    *'"CODE_FILE":"agent/src/'*) ok "log lines are found by their fields" ;;
    *) fail "no entry of the workload in the journal" ;;
    esac
    next reboot
    ;;
  2) # After an orderly reboot.
    check "pods are back after a reboot" soon 180 eval 'answers 8081 && answers 8082'
    journalctl -b -1 --no-pager -o short-monotonic -u mainstay.service -u mainstay-pods.service | tail -n 12 | sed 's/^/INFO /'
    if journalctl -b -1 --no-pager -o cat -u mainstay-pods.service | grep -q 'stopped 2 pods'; then
      ok "the shutdown stopped the pods in order"
    else
      fail "no orderly stop at the shutdown"
    fi
    if ls /var/lib/mainstay/pods/*/web/*/exit.json >/dev/null 2>&1; then ok "their ends are recorded"; else fail "no record of an end"; fi
    before=$(systemd-analyze critical-chain mainstay.service --no-pager 2>/dev/null | sed -n 4,8p | tr '\n' ';')
    info "boot: $before"
    echo 0 >cut
    next cut 1
    ;;
  *) # Power cuts in the middle of updates, each followed by a boot that must find everything.
    n=$(cat cut)
    check "cut $n: pods are back" soon 180 eval 'answers 8081 && answers 8082'
    serves=$(version_at 8081)
    case $serves in
      "version-$n" | "version-$((n - 1))") ok "cut $n: the old or the new version serves ($serves)" ;;
      *) fail "cut $n: serves neither version: $serves" ;;
    esac
    check "cut $n: it becomes the new version" soon 120 eval '[ "$(version_at 8081)" = "version-$n" ]'
    if soon 60 eval '[ "$(counts)" = "$whole" ]'; then ok "cut $n: nothing is left over"; else fail "cut $n: $(counts)"; fi
    check "cut $n: packages are whole" eval 'dpkg --configure -a && mainstay version'
    n=$((n + 1))
    if [ "$n" -gt "$cuts" ]; then
      # A cut in the middle of dpkg's own work: it wants the package again before it removes it.
      dpkg -i new.deb >/dev/null 2>&1
      check "remove" dpkg -r mainstay
      if answers 8081; then fail "a container survived the removal"; else ok "removal stops containers"; fi
      check "the package comes back" dpkg -i new.deb
      check "and its agent runs at once" soon 60 active mainstay.service
      check "and at the next boot" systemctl is-enabled --quiet mainstay.service
      check "the pods are back with it" soon 180 eval 'answers 8081 && answers 8082'
      check "remove again" dpkg -r mainstay
      mkdir -p /var/lib/mainstay/volumes/data && echo precious >/var/lib/mainstay/volumes/data/file
      dpkg -P mainstay >purge.out 2>&1
      if [ "$(cat /var/lib/mainstay/volumes/data/file)" = precious ] && grep -q volumes/data purge.out; then
        ok "purge leaves volumes and says where"
      else
        fail "purge: $(tr '\n' ' ' <purge.out)"
      fi
      check "purge leaves no unit" eval '! systemctl cat mainstay.service'
      check "no mount is left" eval '! grep -q mainstay /proc/self/mountinfo'
      echo VM-DONE
      systemctl poweroff
      sleep 600
    fi
    echo "$n" >cut
    sync
    # Every other time the package is upgraded at the moment of the cut, too.
    pod a 8081 "version-$n" >/etc/mainstay/a.tmp && sync && mv /etc/mainstay/a.tmp /etc/mainstay/manifests/a.yaml && sync
    [ $((n % 2)) = 0 ] && (dpkg -i new.deb >/dev/null 2>&1 &)
    next cut "$((n % 3)).$((n * 7 % 10))"
    ;;
esac
