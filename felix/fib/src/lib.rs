//! Kernel routes, next-hop objects and links over netlink.
