//! What the kernel says about interfaces, as it changes.

use std::sync::Arc;

use caracal_bgp_speaker::net::{InterfaceTable, Interfaces};

use crate::support::*;

/// All that a table knows, in an order that does not depend on how it was learnt.
fn contents(table: &InterfaceTable) -> Vec<String> {
    let links = table.links().map(|link| {
        let mut lines: Vec<String> = format!("{link:?}")
            .split("AddressFacts")
            .map(String::from)
            .collect();
        // The last of a list ends otherwise than the others.
        for line in &mut lines {
            *line = line.trim_end_matches(['}', ']', ',', ' ']).to_owned();
        }
        lines[1..].sort();
        lines.join("\n")
    });
    links.collect()
}

#[test]
fn links_and_addresses_are_known_as_they_come_change_and_go() {
    let Some([a, b]) = hosts("chg") else {
        return;
    };
    a.run(async || {
        let interfaces = Interfaces::start().unwrap();
        let look = async |name: &str| {
            let table = interfaces.current();
            table
                .by_name(name)
                .map(|link| (link.is_up(), link.is_running(), link.link_local().is_some()))
        };
        assert_eq!(look("e1").await, None);
        link((&a, "e1"), (&b, "e1"));
        until(
            "the link",
            async || look("e1").await,
            |seen| *seen == Some((true, true, true)),
        )
        .await;
        let index = interfaces.current().by_name("e1").unwrap().index();

        add_address(&a, "e1", "192.0.2.1/24");
        let holder = async || {
            let found = interfaces
                .current()
                .interface_of("192.0.2.1".parse().unwrap(), None);
            found.map(|interface| interface.index)
        };
        until("the address", holder, |seen| *seen == Some(index)).await;
        let current = interfaces.current();
        assert_eq!(current.external_ttl("192.0.2.9".parse().unwrap()), Some(1));
        a.ip(&["addr", "del", "192.0.2.1/24", "dev", "e1"]);
        until("the address gone", holder, Option::is_none).await;

        b.ip(&["link", "set", "e1", "down"]);
        let carrier = async || look("e1").await.map(|(_, running, _)| running);
        until("no carrier", carrier, |seen| *seen == Some(false)).await;
        b.ip(&["link", "set", "e1", "up"]);
        until("carrier", carrier, |seen| *seen == Some(true)).await;

        a.ip(&["link", "set", "e1", "down"]);
        a.ip(&["link", "set", "e1", "name", "uplink"]);
        let names = async || (look("e1").await.is_some(), look("uplink").await.is_some());
        until("the new name", names, |seen| *seen == (false, true)).await;
        a.ip(&["link", "del", "uplink"]);
        until("the link gone", names, |seen| *seen == (false, false)).await;
    });
}

#[test]
fn a_port_that_leaves_its_bridge_stays_known() {
    let Some([a, b]) = hosts("br") else {
        return;
    };
    link((&a, "e1"), (&b, "e1"));
    a.run(async || {
        let interfaces = Interfaces::start().unwrap();
        a.ip(&["link", "add", "br0", "type", "bridge"]);
        a.ip(&["link", "set", "e1", "master", "br0"]);
        a.ip(&["link", "set", "e1", "nomaster"]);
        a.ip(&["link", "del", "br0"]);
        a.ip(&["link", "add", "mark", "type", "bridge"]);
        // Once the last of them is known, all of them have been heard.
        let known = async || interfaces.current().by_name("mark").is_some();
        until("the mark", known, |seen| *seen).await;
        assert!(interfaces.current().by_name("e1").is_some());
        assert!(interfaces.current().by_name("br0").is_none());
    });
}

#[test]
fn thousands_who_ask_share_one_table_until_something_changes() {
    let Some([a, b]) = hosts("share") else {
        return;
    };
    a.run(async || {
        let interfaces = Interfaces::start().unwrap();
        let first = interfaces.current();
        for _ in 0..2500 {
            assert!(
                Arc::ptr_eq(&first, &interfaces.current()),
                "it was built anew for nothing"
            );
        }
        let mut changes = interfaces.changes();
        link((&a, "e1"), (&b, "e1"));
        tokio::time::timeout(DEADLINE, changes.changed())
            .await
            .unwrap()
            .unwrap();
        assert!(!Arc::ptr_eq(&first, &interfaces.current()));
    });
}

#[test]
fn notifications_that_are_lost_are_made_up_for() {
    let Some([a, b]) = hosts("lost") else {
        return;
    };
    link((&a, "e1"), (&b, "e1"));
    let addresses = |verb: &str, count: u32| {
        let line = |number: u32| {
            let [_, high, mid, low] = number.to_be_bytes();
            format!("addr {verb} 10.{high}.{mid}.{low}/32 dev e1\n")
        };
        (0..count).map(line).collect::<String>()
    };
    let runtime = a.inside(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    });
    a.inside(|| {
        runtime.block_on(async {
            let interfaces = Interfaces::start().unwrap();
            // The only thread is busy here, so that nobody reads: more comes than the socket holds.
            a.ip_batch(&addresses("add", 12_000));
            a.ip_batch(&addresses("del", 6_000));
            let kernel = contents(&InterfaceTable::read().unwrap());
            let look = async || contents(&interfaces.current()) == kernel;
            until("what the kernel has", look, |same| *same).await;
        });
    });
}
