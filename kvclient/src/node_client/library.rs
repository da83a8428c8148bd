//! Documents and streams, through reqwest: the only file that asks with it.
//!
//! Its connections are its own, driven by tasks of the runtime that opened them.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use reqwest::{
    Client, Method, Request, Response, Url,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
    redirect, retry,
};
use tokio::time::timeout;

use super::{
    answer::{Answer, failure, innermost},
    options::NodeClientOptions,
    secured::{Credentials, Tls, secure},
};
use crate::{
    attempt::AttemptError,
    error::{Error, ErrorKind},
    scheme::Scheme,
    shard_map::Address,
};

/// Parsed addresses kept; far more than a cluster has nodes. When reached, all are forgotten.
const CACHED_URLS: usize = 1_024;

/// Most bytes of an answer that says why there is nothing to read.
const REFUSAL_BYTES: usize = 1 << 20;

/// Headers by name.
pub(super) type HeaderLines = [(&'static str, String)];

/// The HTTP library as it asks nodes. Clones share their connections.
#[derive(Debug, Clone)]
pub(super) struct Library {
    built: Arc<ArcSwap<Built>>,
    options: NodeClientOptions,
    scheme: Scheme,
    /// Marked as what no log may show.
    authorization: Option<HeaderValue>,
    /// Base URL by address, since parsing one costs as much as the rest of a small request's set-up. Std lock: never
    /// held over an await.
    urls: Arc<RwLock<HashMap<Address, Url>>>,
}

/// What holds for as long as it is known who is trusted and who this client is.
#[derive(Debug)]
struct Built {
    client: Client,
    credentials: Option<Arc<Credentials>>,
}

impl Library {
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be set up on this machine.
    pub(super) fn new(options: &NodeClientOptions) -> Result<Self, Error> {
        let built = Built::new(options).map_err(|problem| {
            Error::new(ErrorKind::Unavailable, "set up HTTP").with_source(problem)
        })?;
        let authorization = options.token.as_ref().map(|token| {
            let value = HeaderValue::from_str(token.authorization());
            let mut value = value.expect("a token has no characters but those of a header");
            value.set_sensitive(true);
            value
        });
        Ok(Self {
            built: Arc::new(ArcSwap::from_pointee(built)),
            options: options.clone(),
            scheme: options.scheme(),
            authorization,
            urls: Arc::default(),
        })
    }

    /// A whole answer, of whatever status.
    pub(super) async fn get(
        &self,
        node: &Address,
        uri: &str,
        headers: &HeaderLines,
        limit: Duration,
        limit_bytes: usize,
    ) -> Result<Answer, AttemptError> {
        let request = self.request(node, uri, headers)?;
        within(limit, self.whole(request, limit_bytes)).await
    }

    /// An answer that is read while it arrives; `limit` is for its head.
    ///
    /// # Errors
    /// Any status but 200 is [`AttemptError::Refused`].
    pub(super) async fn begin(
        &self,
        node: &Address,
        uri: &str,
        headers: &HeaderLines,
        limit: Duration,
    ) -> Result<Response, AttemptError> {
        let request = self.request(node, uri, headers)?;
        let beginning = async {
            let response = self.execute(request).await?;
            match response.status().as_u16() {
                200 => Ok(response),
                _ => Err(Answer::read(self.scheme, response, REFUSAL_BYTES)
                    .await?
                    .refusal()),
            }
        };
        within(limit, beginning).await
    }

    async fn whole(&self, request: Request, limit_bytes: usize) -> Result<Answer, AttemptError> {
        let response = self.execute(request).await?;
        Answer::read(self.scheme, response, limit_bytes).await
    }

    async fn execute(&self, request: Request) -> Result<Response, AttemptError> {
        let answered = self.client()?.execute(request).await;
        answered.map_err(|error| failure(&error))
    }

    /// One whose connections were all made by what is trusted and shown now; what another one began goes on.
    fn client(&self) -> Result<Client, AttemptError> {
        let built = self.built.load();
        if built.is_by(self.options.tls().as_ref()) {
            return Ok(built.client.clone());
        }
        let newer = Built::new(&self.options)?;
        let client = newer.client.clone();
        self.built.store(Arc::new(newer));
        Ok(client)
    }

    fn request(
        &self,
        node: &Address,
        uri: &str,
        headers: &HeaderLines,
    ) -> Result<Request, AttemptError> {
        let mut request = Request::new(Method::GET, self.url(node, uri)?);
        let all = request.headers_mut();
        for (name, value) in headers {
            let line = HeaderValue::from_str(value).map_err(|_| {
                let problem = format!("header {name}: {value:?} is not one line");
                AttemptError::NotConnected(problem)
            })?;
            all.insert(HeaderName::from_static(name), line);
        }
        if let Some(authorization) = &self.authorization {
            all.insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    /// The URL of a path of a node, and of no other node's.
    fn url(&self, node: &Address, uri: &str) -> Result<Url, AttemptError> {
        let no_path = || AttemptError::NotConnected(format!("{uri:?} is not an escaped path"));
        if !uri.starts_with('/') || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(no_path());
        }
        let base = self.base_url(node)?;
        let url = base.join(uri).map_err(|_| no_path())?;
        // `//` and `/\` begin the name of another one.
        match url.origin() == base.origin() {
            true => Ok(url),
            false => Err(no_path()),
        }
    }

    fn base_url(&self, node: &Address) -> Result<Url, AttemptError> {
        let known = self.urls.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(url) = known.get(node) {
            return Ok(url.clone());
        }
        drop(known);
        let url: Url = node
            .to_url(self.scheme)
            .parse()
            .map_err(|error| AttemptError::NotConnected(format!("{node}: {error}")))?;
        let mut known = self.urls.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CACHED_URLS {
            known.clear();
        }
        known.insert(node.clone(), url.clone());
        Ok(url)
    }
}

impl Built {
    /// # Errors
    /// [`AttemptError::NotConnected`] if it cannot be set up on this machine.
    fn new(options: &NodeClientOptions) -> Result<Self, AttemptError> {
        let tls = options.tls();
        let credentials = tls.as_ref().map(Tls::current);
        let builder = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .http1_only()
            .referer(false)
            .tcp_nodelay(true)
            .connect_timeout(options.connect_timeout)
            .pool_idle_timeout(options.idle_timeout)
            .pool_max_idle_per_host(options.idle_per_node)
            .user_agent(concat!("kvclient/", env!("CARGO_PKG_VERSION")));
        // Without it, bytes sent to a node whose machine is gone are waited for as long as the exchange lasts.
        #[cfg(target_os = "linux")]
        let builder = builder.tcp_user_timeout(Duration::from_secs(5));
        let client = secure(builder, tls.as_ref()).build();
        let client = client.map_err(|error| AttemptError::NotConnected(innermost(&error)))?;
        Ok(Self {
            client,
            credentials,
        })
    }

    fn is_by(&self, tls: Option<&Tls>) -> bool {
        match (&self.credentials, tls) {
            (Some(credentials), Some(tls)) => Arc::ptr_eq(credentials, &tls.current()),
            _ => true,
        }
    }
}

async fn within<T>(
    limit: Duration,
    exchange: impl Future<Output = Result<T, AttemptError>>,
) -> Result<T, AttemptError> {
    let done = timeout(limit, exchange).await;
    done.unwrap_or(Err(AttemptError::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_taken_for_another_request_is_not_sent() {
        let library = Library::new(&NodeClientOptions::default()).expect("set up");
        let node: Address = "h:1".parse().expect("an address");
        let request =
            |uri: &str, value: &str| library.request(&node, uri, &[("x", value.to_owned())]);
        for uri in [
            "",
            "status",
            "/a b",
            "/a\r\nx: y",
            "/\u{e4}",
            "http://h:1/",
            "//other:2/",
            "/\\other:2/",
        ] {
            assert!(request(uri, "1").is_err(), "{uri:?}");
        }
        assert!(request("/a", "1\r\ny: 2").is_err());
        let sent = request("/kv?prefix=%20", "1 2").expect("a request");
        assert_eq!(sent.url().as_str(), "http://h:1/kv?prefix=%20");
    }
}
