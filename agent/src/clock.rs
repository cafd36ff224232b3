//! The one place that reads a clock.
//!
//! Decisions use the boot-time clock, which never jumps; wall time is for people, certificates and cron only. Both
//! come through [`Clock`], so that simulations and tests can hand in another one; the host's clock is never set.

use std::sync::Arc;

use spec::time::Timestamp;

/// Source of the time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the host booted.
    fn now(&self) -> Timestamp;
    /// Seconds of Unix time.
    fn unix(&self) -> i64;
    /// IANA name of the time zone that schedules without one are meant in.
    fn zone(&self) -> String {
        "UTC".to_owned()
    }
}

/// The host's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostClock;

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .expect("CLOCK_BOOTTIME exists since Linux 2.6.39");
        let millis = now.tv_sec().saturating_mul(1000).saturating_add(now.tv_nsec() / 1_000_000);
        Timestamp(u64::try_from(millis).unwrap_or(0))
    }

    fn unix(&self) -> i64 {
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).map(|now| now.tv_sec()).unwrap_or(0)
    }

    fn zone(&self) -> String {
        let variable = std::env::var("TZ").ok().map(|name| name.trim_start_matches(':').to_owned());
        let link = || {
            let target = std::fs::canonicalize("/etc/localtime").ok()?;
            target.to_str()?.split_once("/zoneinfo/").map(|(_, name)| name.to_owned())
        };
        let file = || std::fs::read_to_string("/etc/timezone").ok().map(|text| text.trim().to_owned());
        let known = |name: &String| spec::cron::Zone::named(name).is_some();
        variable
            .filter(known)
            .or_else(|| link().filter(known))
            .or_else(|| file().filter(known))
            .unwrap_or_else(|| "UTC".to_owned())
    }
}

/// A clock that many hold.
pub type SharedClock = Arc<dyn Clock>;
