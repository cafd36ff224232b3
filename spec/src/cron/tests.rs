use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().expect("a moment").as_second()
}

fn parse(text: &str) -> Schedule {
    Schedule::parse(text).expect("a schedule")
}

/// The moments that follow `after`, as a clock in the zone shows them.
#[track_caller]
fn check(schedule: &str, zone: &str, after: &str, expected: &[&str]) {
    let (schedule, zone) = (parse(schedule), Zone::named(zone).expect("a zone"));
    let mut now = at(after);
    for expected in expected {
        let next = schedule.next(&zone, now, now).expect("a next moment");
        assert_eq!(zone.show(next), *expected);
        // Looking back from the moment before the following one finds the same.
        assert_eq!(schedule.latest(&zone, now, next), Some(next), "back from {expected}");
        assert_eq!(schedule.latest(&zone, now, next - 1), None, "nothing between");
        now = next;
    }
}

#[test]
fn moments() {
    check(
        "*/20 9-17 * * mon-fri",
        "UTC",
        "2026-11-20T17:21:00Z",
        &["2026-11-20T17:40:00+00:00", "2026-11-23T09:00:00+00:00", "2026-11-23T09:20:00+00:00"],
    );
    check("5/15 * * * *", "UTC", "2026-01-01T00:49:59Z", &["2026-01-01T00:50:00+00:00", "2026-01-01T01:05:00+00:00"]);
    check("@daily", "Asia/Kolkata", "2026-01-01T00:00:00Z", &["2026-01-02T00:00:00+05:30"]);
    check("@yearly", "UTC", "2026-01-01T00:00:00Z", &["2027-01-01T00:00:00+00:00"]);
    check("@weekly", "UTC", "2026-11-21T00:00:00Z", &["2026-11-22T00:00:00+00:00"]);
    // Both days given: either is enough. With a star in one of them, both must match.
    check("0 0 13 * 5", "UTC", "2026-11-10T00:00:00Z", &["2026-11-13T00:00:00+00:00", "2026-11-20T00:00:00+00:00"]);
    check("0 0 */2 * 5", "UTC", "2026-11-14T00:00:00Z", &["2026-11-15T00:00:00+00:00", "2026-11-17T00:00:00+00:00"]);
    check("0 0 * * 5", "UTC", "2026-11-14T00:00:00Z", &["2026-11-20T00:00:00+00:00"]);
    // Rare days.
    check("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", &["2104-02-29T00:00:00+00:00"]);
    check("0 0 31 * *", "UTC", "2026-01-31T00:00:00Z", &["2026-03-31T00:00:00+00:00", "2026-05-31T00:00:00+00:00"]);
}

#[test]
fn clock_changes() {
    // 02:00 becomes 03:00: a reading in between does not exist on that day.
    check(
        "30 2 * * *",
        "Europe/Berlin",
        "2026-03-28T00:00:00Z",
        &["2026-03-28T02:30:00+01:00", "2026-03-30T02:30:00+02:00"],
    );
    check(
        "*/30 * * * *",
        "Europe/Berlin",
        "2026-03-29T00:00:00Z",
        &["2026-03-29T01:30:00+01:00", "2026-03-29T03:00:00+02:00"],
    );
    // 03:00 becomes 02:00: a reading in between comes twice.
    check(
        "30 2 * * *",
        "Europe/Berlin",
        "2026-10-24T12:00:00Z",
        &["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"],
    );
    check(
        "0 * * * *",
        "America/New_York",
        "2026-11-01T04:30:00Z",
        &["2026-11-01T01:00:00-04:00", "2026-11-01T01:00:00-05:00", "2026-11-01T02:00:00-05:00"],
    );
    // Midnight may be what is left out, and a change may be of half an hour.
    check("0 0 * * *", "America/Asuncion", "2023-09-30T04:30:00Z", &["2023-10-02T00:00:00-03:00"]);
    check(
        "*/15 2 * * *",
        "Australia/Lord_Howe",
        "2026-10-03T14:00:00Z",
        &["2026-10-04T02:30:00+11:00", "2026-10-04T02:45:00+11:00", "2026-10-05T02:00:00+11:00"],
    );
    // A whole day may be left out (Samoa crossed the date line).
    check("0 12 30 12 *", "Pacific/Apia", "2011-01-01T00:00:00Z", &["2012-12-30T12:00:00+14:00"]);
}

#[test]
fn every_counts_from_its_start() {
    let (every, zone) = (parse("@every 1h30m"), Zone::utc());
    assert_eq!(every.next(&zone, 1000, 1000), Some(6400));
    assert_eq!(every.next(&zone, 1000, 6400), Some(11_800));
    assert_eq!(every.next(&zone, 1000, 500), Some(6400));
    assert_eq!(every.latest(&zone, 1000, 6399), None);
    assert_eq!(every.latest(&zone, 1000, 1000 + 5400 * 1_000_000 + 7), Some(1000 + 5400 * 1_000_000));
    assert_eq!(parse("@every 1ms").next(&zone, 0, 0), Some(1));
}

#[test]
fn what_never_comes_is_said_so_at_once() {
    let never = parse("0 0 30 2 *");
    let berlin = Zone::named("Europe/Berlin").expect("a zone");
    assert_eq!(never.next(&berlin, 0, at("2026-01-01T00:00:00Z")), None);
    assert_eq!(never.latest(&berlin, 0, at("2026-01-01T00:00:00Z")), None);
}

/// However long the agent was away, one answer, and quickly.
#[test]
fn the_latest_of_millions_is_found_directly() {
    let zone = Zone::named("Europe/Berlin").expect("a zone");
    let now = at("2026-11-21T03:00:30Z");
    let started = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(parse("* * * * *").latest(&zone, at("2017-01-01T00:00:00Z"), now), Some(now - 30));
    }
    assert!(started.elapsed().as_secs() < 5);
}

#[test]
fn odd_moments_answer() {
    let (zone, schedule) = (Zone::utc(), parse("* * * * *"));
    for moment in [i64::MIN, -1, 0, i64::MAX] {
        let _ = schedule.next(&zone, moment, moment);
        let _ = schedule.latest(&zone, moment, i64::MAX);
        let _ = schedule.latest(&zone, i64::MIN, moment);
        let _ = parse("@every 1h").next(&zone, i64::MIN, moment);
        let _ = parse("@every 1h").latest(&zone, i64::MIN, moment);
    }
}

#[test]
fn every_zone_that_manifests_may_name_is_known() {
    for zone in include_str!("../schema/zones.txt").lines() {
        assert!(Zone::named(zone).is_some(), "{zone}");
    }
}

fn field(min: u32, max: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => (min..=max).prop_map(|n| n.to_string()),
        1 => (min..=max, 1u32..20).prop_map(|(n, step)| format!("{n}/{step}")),
        1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
    ]
}

proptest! {
    /// The plain definition: look at each minute's reading.
    #[test]
    fn the_same_as_looking_at_every_minute(
        fields in (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)),
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo"]),
        start in 1_760_000_000i64..1_800_000_000,
    ) {
        let text = format!("{} {} {} {} {}", fields.0, fields.1, fields.2, fields.3, fields.4);
        let (schedule, zone) = (parse(&text), Zone::named(zone).expect("a zone"));
        let Rule::Clock(clock) = &schedule.0 else { unreachable!("five fields") };
        let matches = |unix: i64| {
            let (at, offset) = zone.at(unix).expect("in range");
            let reading = reading(at, offset).expect("in range");
            clock.first(reading, reading) == Some(reading)
        };
        let until = start + 86_400;
        let first_minute = start - start.rem_euclid(60) + 60;
        let slow: Vec<i64> = (first_minute..=until).step_by(60).filter(|unix| matches(*unix)).collect();
        prop_assert_eq!(schedule.next(&zone, start, start).filter(|next| *next <= until), slow.first().copied());
        prop_assert_eq!(schedule.latest(&zone, start, until), slow.last().copied());
    }

    #[test]
    fn any_text_answers(text in "\\PC*") {
        if let Ok(schedule) = Schedule::parse(&text) {
            let _ = schedule.next(&Zone::utc(), 0, 1_800_000_000);
        }
    }
}
