//! Keeps the certificate: the Secret that all replicas share, what of it is served, and whom the webhook configuration tells API servers
//! to trust. Every replica does the same. Of two that write, the API server refuses one by the resourceVersion, and that one reads
//! again what there is then; so nobody has to lead.

use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::material::{Shared, Step};
use super::server::Serving;
use crate::ready::{BlockReady, Ready};
use crate::telemetry::Expiry;

/// Owns the field that is written in the webhook configuration.
const MANAGER: &str = "floodway-injector";
/// How often all is looked at, without any news.
const INTERVAL: Duration = Duration::from_secs(30);
/// News closer together are one.
const COALESCE: Duration = Duration::from_millis(50);
/// The shortest and the longest pause after something failed.
const RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a write that lost against another is tried again at once.
const ATTEMPTS: usize = 5;

/// What everything is called.
#[derive(Clone, Debug)]
pub struct Names {
    /// The namespace of the Secret and the Service.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// The Service that leads to the webhook, whose name the certificate has.
    pub service: String,
    /// The MutatingWebhookConfiguration.
    pub configuration: String,
    /// The webhook in it.
    pub webhook: String,
}

/// Keeps the certificate.
pub struct Keeper {
    client: Client,
    names: Names,
    hosts: Vec<String>,
    lifetime: Duration,
    serving: Serving,
    held: Arc<Mutex<Option<Shared>>>,
    waiting: Option<[BlockReady; 2]>,
    told: String,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Not ready before there is a certificate, and API servers are told to trust it.
    pub fn new(client: Client, names: Names, lifetime: Duration, serving: Serving, ready: &Ready) -> Self {
        let Names { namespace, service, .. } = &names;
        // What API servers ask for is the first one.
        let hosts = vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")];
        let waiting = Some([
            ready.block(format!("the certificate of the webhook, in Secret {namespace}/{}", names.secret)),
            ready.block(format!("the webhook configuration {}", names.configuration)),
        ]);
        Keeper { client, names, hosts, lifetime, serving, held: Arc::default(), waiting, told: String::new() }
    }

    /// When the certificate ends, for metrics.
    pub fn expiry(&self) -> impl Fn() -> Vec<Expiry> + Send + Sync + 'static {
        let (held, secret) = (Arc::clone(&self.held), format!("{}/{}", self.names.namespace, self.names.secret));
        move || {
            let held = held.lock().unwrap_or_else(PoisonError::into_inner);
            held.iter().map(|held| Expiry { secret: secret.clone(), not_after: held.current.not_after() }).collect()
        }
    }

    /// Keeps it, for ever.
    pub async fn run(mut self) -> Infallible {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let named = |name: &str| Config::default().fields(&format!("metadata.name={name}"));
        let secret = watcher(secrets, named(&self.names.secret)).default_backoff();
        let configuration = watcher(configurations, named(&self.names.configuration)).default_backoff();
        let (mut secret, mut configuration) = (pin!(secret), pin!(configuration));
        let mut retry = RETRY;
        loop {
            let looked = timeout(PATIENCE, self.look()).await;
            let failed = looked.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in time"))).err();
            let pause = match &failed {
                Some(_) => {
                    let pause = retry;
                    retry = (retry * 2).min(LONGEST_RETRY);
                    pause
                }
                None => {
                    retry = RETRY;
                    INTERVAL.min(self.lifetime / 60)
                }
            };
            self.tell(failed);
            // That something happened is enough: all is read again.
            tokio::select! {
                _ = secret.next() => sleep(COALESCE).await,
                _ = configuration.next() => sleep(COALESCE).await,
                () = sleep(pause) => {}
            }
        }
    }

    /// Each trouble once.
    fn tell(&mut self, failed: Option<anyhow::Error>) {
        let trouble = failed.map(|error| format!("{error:#}")).unwrap_or_default();
        if trouble != self.told {
            if trouble.is_empty() {
                tracing::info!("the certificate of the webhook is as it should be again");
            } else {
                tracing::warn!("the certificate of the webhook cannot be kept, and will be tried again: {trouble}");
            }
            self.told = trouble;
        }
    }

    /// Looks at everything, and does what is to be done.
    async fn look(&mut self) -> anyhow::Result<()> {
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let mut configuration = configurations.get_opt(&self.names.configuration).await?;
        for _ in 0..ATTEMPTS {
            let trusted = configuration.as_ref().and_then(|found| self.trusted(found)).unwrap_or_default();
            let Some(shared) = self.agree(&trusted).await? else { continue };
            self.serve(&shared)?;
            if let Some(found) = configuration.take() {
                self.trust(&configurations, &found, &shared).await?;
            } else {
                anyhow::bail!(
                    "there is no MutatingWebhookConfiguration {}, so no pod gets the sidecar; the chart makes it",
                    self.names.configuration
                );
            }
            return Ok(());
        }
        anyhow::bail!("Secret {}/{} changes too often", self.names.namespace, self.names.secret)
    }

    /// What the Secret holds in the end; `None` if another replica was faster.
    async fn agree(&self, trusted: &[u8]) -> anyhow::Result<Option<Shared>> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let secret = secrets.get_opt(&self.names.secret).await?;
        let there = secret.as_ref().and_then(|secret| Shared::read(secret.data.as_ref()?, &self.hosts));
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let step = Shared::step(there.as_ref(), held.as_ref(), trusted, &self.hosts, now(), self.lifetime)?;
        let (shared, why) = match step {
            Step::Keep => return Ok(there),
            Step::Write(shared, why) => (*shared, why),
        };
        let mut wanted = secret.clone().unwrap_or_default();
        wanted.data = Some(shared.write());
        let written = match secret {
            Some(_) => secrets.replace(&self.names.secret, &PostParams::default(), &wanted).await,
            None => {
                let labels =
                    [("app.kubernetes.io/name", "floodway-injector"), ("app.kubernetes.io/managed-by", MANAGER)];
                let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
                wanted.metadata = ObjectMeta {
                    name: Some(self.names.secret.clone()),
                    labels: Some(labels.into()),
                    ..ObjectMeta::default()
                };
                secrets.create(&PostParams::default(), &wanted).await
            }
        };
        match written {
            Ok(_) => {
                tracing::info!(secret = self.names.secret, why, "wrote the certificate of the webhook");
                Ok(Some(shared))
            }
            // Another replica did it, or somebody changed or deleted it meanwhile.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// From now on this is served, and comes back if the Secret goes.
    fn serve(&mut self, shared: &Shared) -> anyhow::Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref() != Some(shared) {
            self.serving.serve(shared.current.certified()?);
            *held = Some(shared.clone());
        }
        Ok(())
    }

    /// Whom API servers trust; `None` if there is no such webhook.
    fn trusted(&self, configuration: &MutatingWebhookConfiguration) -> Option<Vec<u8>> {
        let webhook = configuration.webhooks.iter().flatten().find(|webhook| webhook.name == self.names.webhook)?;
        Some(webhook.client_config.ca_bundle.as_ref().map(|bundle| bundle.0.clone()).unwrap_or_default())
    }

    /// Has API servers trust the certificate.
    async fn trust(
        &mut self,
        configurations: &Api<MutatingWebhookConfiguration>,
        found: &MutatingWebhookConfiguration,
        shared: &Shared,
    ) -> anyhow::Result<()> {
        let Names { configuration, webhook, .. } = &self.names;
        let Some(trusted) = self.trusted(found) else {
            anyhow::bail!(
                "the MutatingWebhookConfiguration {configuration} has no webhook {webhook}; the chart has one"
            )
        };
        let bundle = shared.bundle();
        if trusted != bundle.as_bytes() {
            // The one field that is ours; all others are the chart's, which says nothing of this one. The uid makes the API server
            // refuse it if another object has taken the name.
            let patch = json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": configuration, "uid": found.metadata.uid},
                "webhooks": [{"name": webhook, "clientConfig": {"caBundle": k8s_openapi::ByteString(bundle.into_bytes())}}],
            });
            configurations.patch(configuration, &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch)).await?;
            tracing::info!(configuration, "API servers are told whom to trust");
        }
        self.waiting = None;
        Ok(())
    }
}

/// In seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
