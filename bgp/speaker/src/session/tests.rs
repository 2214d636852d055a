//! Sessions with each other, and the RIB's end of each in the hands of the test.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::config::SpeakerConfig;
use crate::snapshot::SessionState;
use crate::status::Board;
use crate::translate::machine_config;
use caracal_bgp_core::types::RouterId;

const DEADLINE: Duration = Duration::from_secs(40);

/// One end of a session.
struct End {
    commands: mpsc::Sender<Command>,
    config: Arc<PeerConfig>,
    machine: Config,
    board: Arc<PeerBoard>,
    changes: watch::Receiver<u64>,
    /// What the RIB is given, by this and by the session.
    inputs: mpsc::Receiver<Input>,
    rib: mpsc::Sender<Input>,
}

impl End {
    /// The end of AS `asn`, whose RIB takes `room` inputs before it is busy.
    fn start(asn: u32, other: u32, remote: SocketAddr, passive: bool, room: usize) -> Self {
        let (rib, inputs) = mpsc::channel(room);
        let speaker = SpeakerConfig::new(Asn(asn), RouterId(asn));
        let config = Arc::new(PeerConfig {
            passive,
            ..PeerConfig::new(remote, Asn(other))
        });
        let name = PeerName::from("peer");
        let (changed, changes) = watch::channel(0);
        let board = Board::new(Arc::new(changed)).open(&name);
        let index = PeerIndex(0);
        let machine = machine_config(&speaker, &config, index, false);
        let (commands, _) = spawn(Setup {
            name,
            index,
            config: Arc::clone(&config),
            remote,
            machine: machine.clone(),
            wish: Admin::Up,
            path_proved: false,
            rib: RibHandle(rib.clone()),
            board: Arc::clone(&board),
            barred: Arc::default(),
            interfaces: Interfaces::start().unwrap(),
            ignored_interfaces: Arc::default(),
            restarting: watch::channel(false).1,
            trace: Trace::default(),
        });
        Self {
            commands,
            config,
            machine,
            board,
            changes,
            inputs,
            rib,
        }
    }

    async fn order(&self, order: Command) {
        self.commands.send(order).await.unwrap();
    }

    async fn established(&mut self) {
        let up = async {
            while self.board.status().state != SessionState::Established {
                self.changes.changed().await.unwrap();
            }
        };
        timeout(DEADLINE, up).await.expect("a session");
    }

    /// The next event that the RIB is given.
    async fn event(&mut self) -> RibEvent {
        let event = async {
            loop {
                match self.inputs.recv().await.unwrap() {
                    Input::Event(event) | Input::Up(event, _) => return event,
                    _ => {}
                }
            }
        };
        timeout(DEADLINE, event).await.expect("an event")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_addresses_at_our_end_do_not_overtake_the_session_that_has_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let remote = listener.local_addr().unwrap();
    let mut ours = End::start(65_001, 65_002, remote, false, 1);
    let mut theirs = End::start(65_002, 65_001, remote, true, 16);
    // The RIB is busy, and the session has to wait for it.
    let index = PeerIndex(7);
    let first = RibEvent::PathDown { index };
    let _ = ours.rib.try_send(Input::Event(first.clone()));
    let (stream, _) = listener.accept().await.unwrap();
    theirs.order(Command::Incoming(stream)).await;
    ours.established().await;
    let ignored = Reconfiguration {
        config: Arc::clone(&ours.config),
        machine: ours.machine.clone(),
        ignored_interfaces: [InterfaceGlob::new("lo")].into(),
        new_session: false,
    };
    ours.order(Command::Configure(Box::new(ignored))).await;

    assert_eq!(ours.event().await, first);
    let RibEvent::PeerUp { ends, .. } = ours.event().await else {
        panic!("no session");
    };
    assert_eq!(ends.subnets.len(), 1, "that of the loopback addresses");
    let RibEvent::Relocated { ends, .. } = ours.event().await else {
        panic!("no other addresses");
    };
    assert_eq!(ends.subnets, []);
    theirs.established().await;
}
