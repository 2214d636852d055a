//! From resources to routes.

use std::collections::BTreeMap;

use caracal_bgp_speaker::handle::SpeakerSnapshot;
use caracal_crds::{BlockPhase, RouteCounts};

use crate::config::Config;
use crate::error::Error;
use crate::node::NodeFacts;
use crate::world::World;

pub(crate) struct Routing {}

impl Routing {
    pub(crate) fn open(_config: &Config) -> Result<Routing, caracal_fib::Error> {
        Ok(Routing {})
    }
    pub(crate) fn running(&self) -> bool {
        true
    }
    pub(crate) async fn apply(
        &mut self,
        _world: &World,
        _node: &NodeFacts,
        _phases: &BTreeMap<String, BlockPhase>,
    ) -> Result<(), Error> {
        Ok(())
    }
    pub(crate) async fn account(&self) -> (Option<SpeakerSnapshot>, Option<RouteCounts>) {
        (None, None)
    }
    pub(crate) async fn changed(&mut self) {
        std::future::pending().await
    }
    pub(crate) async fn end(&mut self) {}
}
