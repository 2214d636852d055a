use super::*;

fn report(state: LinkState) -> LinkReport {
    LinkReport {
        interface: "eth1".into(),
        ifindex: Some(2),
        state,
        trouble: None,
    }
}

fn board() -> Board {
    let board = Board::default();
    board.want(&BTreeSet::from(["eth1".to_owned()]));
    board
}

fn neighbor(heard: Instant) -> LinkState {
    LinkState::Neighbor {
        address: "fe80::1".parse().unwrap(),
        heard,
    }
}

#[test]
fn the_board_tells_the_newest_of_each_link_once() {
    let board = board();
    let now = Instant::now();
    board.report(report(LinkState::Silent));
    board.report(report(neighbor(now)));
    assert_eq!(board.take_news(), [report(neighbor(now))]);
    assert_eq!(board.take_news(), []);
}

#[test]
fn a_neighbour_heard_again_is_no_news_but_shows() {
    let board = board();
    let (first, second) = (Instant::now(), Instant::now() + Duration::from_secs(10));
    board.report(report(neighbor(first)));
    board.take_news();
    board.report(report(neighbor(second)));
    assert_eq!(board.take_news(), []);
    assert_eq!(board.lock().reports["eth1"].state, neighbor(second));
}

#[test]
fn of_a_link_that_is_not_wanted_nothing_is_told() {
    let board = board();
    board.report(report(LinkState::Silent));
    board.want(&BTreeSet::new());
    board.report(report(LinkState::Absent));
    assert_eq!(board.take_news(), []);
    assert!(board.lock().reports.is_empty());
}

#[test]
fn trouble_is_news() {
    let board = board();
    board.report(report(LinkState::Silent));
    board.take_news();
    let troubled = LinkReport {
        trouble: Some("no".into()),
        ..report(LinkState::Silent)
    };
    board.report(troubled.clone());
    assert_eq!(board.take_news(), [troubled]);
}

#[test]
fn messages_of_all_links_leave_one_after_the_other() {
    let pacer = Pacer::default();
    let now = Instant::now();
    let slots: Vec<Instant> = (0..500).map(|_| pacer.slot(now)).collect();
    assert_eq!(slots[0], now);
    assert!(slots.windows(2).all(|pair| pair[1] - pair[0] == PACE));
    let later = now + Duration::from_secs(5);
    assert_eq!(pacer.slot(later), later);
}
