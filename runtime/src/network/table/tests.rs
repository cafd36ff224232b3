//! What we write, as `nft` reads it back.

use super::*;
use crate::network::tests::{nft, on_a_host};

fn contents() -> Contents {
    let name = interface("ms0");
    let key = |bytes: Vec<u8>| (Key::new(bytes), None);
    BTreeMap::from([
        (BRIDGES, Elements::from([key(name.clone())])),
        (SAME, Elements::from([key([name.clone(), name].concat())])),
        (SUBNETS4, Elements::from([key(vec![10, 88, 0, 0]), (Key { bytes: vec![10, 88, 16, 0], end: true }, None)])),
        (METADATA4, Elements::from([key(vec![169, 254, 169, 254])])),
        (
            PORTS4,
            Elements::from([(Key::new(vec![6, 0, 0, 0, 0, 80, 0, 0]), Some(vec![10, 88, 0, 2, 0x1f, 0x90, 0, 0]))]),
        ),
        (
            SPREAD,
            Elements::from([(
                Key::new(vec![10, 95, 241, 7, 6, 0, 0, 0, 0, 80, 0, 0, 0, 0, 0, 0]),
                Some(vec![10, 88, 0, 2, 0x1f, 0x90, 0, 0]),
            )]),
        ),
        (
            BOUND6,
            Elements::from([(
                Key::new([&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1, 17, 0, 0, 0, 0, 53, 0, 0]].concat()),
                Some([&[0xfd][..], &[0; 14], &[2, 0, 53, 0, 0]].concat()),
            )]),
        ),
    ])
}

#[test]
fn nft_prints_the_table_as_it_is_meant() {
    on_a_host(|_| {
        let table = Table::open("ms").expect("nf_tables");
        table.install(&contents()).expect("a valid batch");
        let Some(printed) = nft(&["list", "ruleset"]) else { return };
        assert_eq!(normalise(&printed), normalise(include_str!("expected.nft")), "{printed}");
        assert_eq!(table.faults().expect("readable"), Vec::<String>::new());
    });
}

/// Comments carry hashes that change with every rule; blank lines and indentation say nothing.
fn normalise(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let line = line.trim();
        match line.split_once(" #") {
            Some((before, _)) => format!("{before}\""),
            None => line.to_owned(),
        }
    };
    text.lines().map(line).filter(|l| !l.is_empty()).collect()
}

#[test]
fn what_was_written_is_read_back_and_changed_by_difference() {
    on_a_host(|_| {
        let table = Table::open("ms").expect("nf_tables");
        assert_eq!(table.read(&[PORTS4]).expect("readable"), None);
        table.install(&contents()).expect("a valid batch");
        let names: Vec<_> = contents().keys().copied().collect();
        assert_eq!(table.read(&names).expect("readable"), Some(contents()));

        let mut wished = contents();
        let ports = wished.get_mut(PORTS4).expect("in the contents");
        *ports.get_mut(&Key::new(vec![6, 0, 0, 0, 0, 80, 0, 0])).expect("in the contents") =
            Some(vec![10, 88, 0, 3, 0x1f, 0x90, 0, 0]);
        for port in 1000..2500_u16 {
            let [high, low] = port.to_be_bytes();
            ports.insert(Key::new(vec![17, 0, 0, 0, high, low, 0, 0]), Some(vec![10, 88, 0, 3, high, low, 0, 0]));
        }
        wished.insert(BOUND6, Elements::new());
        assert!(table.update(&contents(), &wished).expect("a valid batch"));
        assert_eq!(table.read(&names).expect("readable"), Some(wished.clone()));
        assert!(!table.update(&wished, &wished).expect("nothing to do"));
        table.remove().expect("there");
        table.remove().expect("gone already");
        assert_eq!(table.read(&[PORTS4]).expect("readable"), None);
    });
}

#[test]
fn changes_by_others_are_told() {
    for (command, expected) in [
        ("flush ruleset", "chain refuse of table ms is missing"),
        ("flush chain inet ms forward", "the rules of chain forward of table ms were changed"),
        ("add rule inet ms input accept", "the rules of chain input of table ms were changed"),
        ("chain inet ms forward { policy drop; }", "chain forward of table ms has another hook or policy"),
        ("add chain inet ms other; add rule inet ms other accept", "table ms has a foreign chain other"),
    ] {
        on_a_host(|_| {
            let table = Table::open("ms").expect("nf_tables");
            table.install(&contents()).expect("a valid batch");
            if nft(&[command]).is_none() {
                return;
            }
            assert_eq!(table.faults().expect("readable").first().map(String::as_str), Some(expected), "{command}");
            table.install(&contents()).expect("a valid batch");
            assert!(table.faults().expect("readable").is_empty(), "{command}");
        });
    }
}

#[test]
fn a_refused_batch_names_the_culprit_and_changes_nothing() {
    on_a_host(|_| {
        let table = Table::open("ms").expect("nf_tables");
        table.install(&contents()).expect("a valid batch");
        let mut wished = contents();
        wished.insert(PORTS4, Elements::new());
        wished.insert(SUBNETS4, Elements::from([(Key::new(vec![1, 2, 3]), None)]));
        let error = table.update(&contents(), &wished).expect_err("a key of the wrong length");
        assert_eq!(error.to_string(), "cannot add elements of set subnets4");
        assert_eq!(table.read(&[PORTS4]).expect("readable").expect("there")[PORTS4], contents()[PORTS4]);
    });
}
