//! nf_tables over netlink: typed objects, transactions, read-back.
