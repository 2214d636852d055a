//! The lab's hand on the API server: generic reads and writes with one client.

use std::time::Duration;

use anyhow::{Context, bail};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::core::GroupVersionKind;
use serde_json::Value;

/// Who the API server shows as the author of the lab's writes.
const MANAGER: &str = "caracal-lab";

/// A client with a runtime of its own, so that the lab's plain threads can use it.
pub struct ApiHandle {
    client: kube::Client,
    runtime: tokio::runtime::Handle,
}

impl ApiHandle {
    /// A client for a server without authentication.
    ///
    /// # Errors
    /// The address is not a URL.
    pub fn new(url: &str, runtime: tokio::runtime::Handle) -> anyhow::Result<Self> {
        let uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        let _guard = runtime.enter();
        let client = kube::Client::try_from(kube::Config::new(uri))
            .with_context(|| format!("cannot make a client for {url}"))?;
        Ok(Self { client, runtime })
    }

    /// Creates an object, and writes its status where it has one, as the object's owner would.
    ///
    /// # Errors
    /// The server refuses; the message carries its reason.
    pub fn create(&self, object: &Value) -> anyhow::Result<()> {
        let (api, name) = self.api(object)?;
        let value: DynamicObject = serde_json::from_value(object.clone())
            .with_context(|| format!("cannot read object {name}"))?;
        self.runtime
            .block_on(api.create(&PostParams::default(), &value))
            .with_context(|| format!("cannot create {} {name}", object["kind"]))?;
        if object.get("status").is_some() {
            self.patch_status(object, &serde_json::json!({"status": object["status"]}))?;
        }
        Ok(())
    }

    /// Merges into an object's status.
    ///
    /// # Errors
    /// The server refuses.
    pub fn patch_status(&self, object: &Value, patch: &Value) -> anyhow::Result<()> {
        let (api, name) = self.api(object)?;
        let parameters = PatchParams {
            field_manager: Some(MANAGER.into()),
            ..PatchParams::default()
        };
        self.runtime
            .block_on(api.patch_status(&name, &parameters, &Patch::Merge(patch)))
            .with_context(|| format!("cannot write the status of {} {name}", object["kind"]))?;
        Ok(())
    }

    /// Merges into an object.
    ///
    /// # Errors
    /// The server refuses.
    pub fn merge(&self, object: &Value, patch: &Value) -> anyhow::Result<()> {
        let (api, name) = self.api(object)?;
        let parameters = PatchParams {
            field_manager: Some(MANAGER.into()),
            ..PatchParams::default()
        };
        self.runtime
            .block_on(api.patch(&name, &parameters, &Patch::Merge(patch)))
            .with_context(|| format!("cannot change {} {name}", object["kind"]))?;
        Ok(())
    }

    /// Deletes an object and waits until it is gone.
    ///
    /// # Errors
    /// The server refuses, or the object stays.
    pub fn delete(&self, object: &Value) -> anyhow::Result<()> {
        let (api, name) = self.api(object)?;
        self.runtime.block_on(async {
            api.delete(&name, &DeleteParams::default().grace_period(0))
                .await
                .with_context(|| format!("cannot delete {} {name}", object["kind"]))?;
            let gone = async {
                while api.get_opt(&name).await?.is_some() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok::<_, kube::Error>(())
            };
            match tokio::time::timeout(Duration::from_secs(5), gone).await {
                Ok(result) => result.with_context(|| format!("cannot read {name}")),
                Err(_) => bail!(
                    "{} {name} is still there after its deletion",
                    object["kind"]
                ),
            }
        })
    }

    /// All objects of a kind.
    ///
    /// # Errors
    /// The server refuses.
    pub fn list(&self, api_version: &str, kind: &str) -> anyhow::Result<Vec<DynamicObject>> {
        let api: Api<DynamicObject> =
            Api::all_with(self.client.clone(), &resource(api_version, kind));
        let list = self
            .runtime
            .block_on(api.list(&ListParams::default()))
            .with_context(|| format!("cannot list {kind}"))?;
        Ok(list.items)
    }

    fn api(&self, object: &Value) -> anyhow::Result<(Api<DynamicObject>, String)> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (Some(version), Some(kind), Some(name)) = (
            text(&object["apiVersion"]),
            text(&object["kind"]),
            text(&object["metadata"]["name"]),
        ) else {
            bail!("an object needs apiVersion, kind and metadata.name: {object}");
        };
        let resource = resource(&version, &kind);
        let api = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        Ok((api, name))
    }
}

fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let plural = match kind {
        "NetworkPolicy" => "networkpolicies".to_owned(),
        "NodeNetworkStatus" => "nodenetworkstatuses".to_owned(),
        _ => format!("{}s", kind.to_lowercase()),
    };
    ApiResource::from_gvk_with_plural(&gvk, &plural)
}
