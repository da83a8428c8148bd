//! TLS in front of a scripted node.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use kvclient::shard_map::Address;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::certificates::Pair;

/// TLS in front of a node that speaks in the clear.
pub(crate) struct Front {
    pub(crate) address: Address,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    handshakes: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Front {
    pub(crate) async fn before(node: &Address, pair: &Pair) -> Self {
        Self::start(node, server_config(pair, None)).await
    }

    /// One that asks for a certificate by the authority in a file, and takes nobody without.
    pub(crate) async fn asking(node: &Address, pair: &Pair, clients: &Path) -> Self {
        Self::start(node, server_config(pair, Some(clients))).await
    }

    async fn start(node: &Address, config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::new(Mutex::new(Arc::new(config)));
        let handshakes = Arc::new(AtomicUsize::new(0));
        let accepting = accept(listener, node.clone(), config.clone(), handshakes.clone());
        Self {
            address: format!("localhost:{port}").parse().unwrap(),
            config,
            handshakes,
            accepting: tokio::spawn(accepting).abort_handle(),
        }
    }

    /// The address by number, which is another name.
    pub(crate) fn by_number(&self) -> Address {
        format!("127.0.0.1:{}", self.address.port())
            .parse()
            .unwrap()
    }

    /// Shows another certificate from now on.
    pub(crate) fn shows(&self, pair: &Pair) {
        *self.config.lock().unwrap() = Arc::new(server_config(pair, None));
    }

    /// Handshakes that have come about.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }

    /// Closes everything.
    pub(crate) fn stop(&self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    node: Address,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    handshakes: Arc<AtomicUsize>,
) {
    let mut open = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = TlsAcceptor::from(config.lock().unwrap().clone());
        let (node, handshakes) = (node.clone(), handshakes.clone());
        open.spawn(async move {
            let Ok(mut outer) = acceptor.accept(stream).await else {
                return;
            };
            handshakes.fetch_add(1, Ordering::SeqCst);
            let Ok(mut inner) = TcpStream::connect(node.to_string()).await else {
                return;
            };
            let _ = copy_bidirectional(&mut outer, &mut inner).await;
        });
    }
}

fn server_config(pair: &Pair, clients: Option<&Path>) -> ServerConfig {
    let provider = kvclient::tls::provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut store = RootCertStore::empty();
            let found = CertificateDer::from_pem_file(authority).unwrap();
            store.add(found).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    builder
        .with_single_cert(chain.collect::<Result<_, _>>().unwrap(), key)
        .unwrap()
}
