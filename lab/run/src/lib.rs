//! The lab runtime: namespaces, wires, routers, faults, probes, reports.
