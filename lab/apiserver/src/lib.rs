//! An embedded Kubernetes API server, for laptops, labs and tests.
//!
//! Owns a store of objects, the rules of the Kubernetes API (CRUD, patches, server-side apply,
//! watches, tables, custom resources) and an HTTP front; stock `kubectl` and `kube` clients use it
//! as they would a real one. It has no disk, no TLS, no authentication and no admission plugins,
//! and of the usual controllers only those that clients rely on: namespace deletion and garbage
//! collection.
//!
//! ```no_run
//! # async fn example() -> Result<(), caracal_apiserver::Error> {
//! use caracal_apiserver::{ApiServer, Options};
//!
//! let server = ApiServer::start(Options::loopback()).await?;
//! println!("{}", server.kubeconfig());
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod api;
pub mod audit;
pub mod builtin;
pub mod crd;
pub mod crud;
pub mod discovery;
pub mod faults;
pub mod field_set;
pub mod machinery;
pub mod managed_fields;
pub mod metadata;
pub mod names;
pub mod negotiate;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod request;
pub mod resource;
pub mod review;
pub mod schema;
pub mod selectors;
pub mod server;
pub mod service;
pub mod status;
pub mod store;
pub mod table;
pub mod watch;

pub use audit::{Record, RequestKind, Requests};
pub use faults::{Fault, FaultId, Faults, Target};
pub use server::{ApiServer, Error, Listen, Options, kubeconfig};
pub use service::{AnswerBody, ApiService};
