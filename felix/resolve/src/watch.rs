//! Who watches the speaker: BMP stations and MRT dumps.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use caracal_bgp_speaker::config::{BmpRoutes, BmpStation, MrtDump};

use crate::settings::Settings;

const DEFAULT_STATISTICS_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_ROTATE_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// The stations, in the order of the configuration.
pub(crate) fn stations(settings: &Settings) -> Vec<BmpStation> {
    let routes = |routes: &caracal_crds::BmpRoutes| match routes {
        caracal_crds::BmpRoutes::PrePolicy => BmpRoutes::PrePolicy,
        caracal_crds::BmpRoutes::PostPolicy => BmpRoutes::PostPolicy,
        caracal_crds::BmpRoutes::LocRib => BmpRoutes::LocRib,
        caracal_crds::BmpRoutes::AdjRibOut => BmpRoutes::AdjRibOut,
    };
    let station = |station: &caracal_crds::BmpStation| {
        let mut told: Vec<BmpRoutes> = station.routes.iter().map(routes).collect();
        told.sort_unstable();
        told.dedup();
        BmpStation {
            address: SocketAddr::new(station.address, station.port),
            routes: told,
            report_interval: station
                .statistics_interval
                .map_or(DEFAULT_STATISTICS_INTERVAL, |interval| interval.0),
        }
    };
    settings.bmp.iter().map(station).collect()
}

/// The dump.
pub(crate) fn dump(mrt: &caracal_crds::MrtDump) -> MrtDump {
    let rotate = mrt
        .rotate_interval
        .map_or(DEFAULT_ROTATE_INTERVAL, |interval| interval.0);
    MrtDump {
        directory: PathBuf::from(&mrt.directory),
        updates: mrt.updates.then_some(rotate),
        tables: mrt.table_interval.map(|interval| interval.0),
    }
}
