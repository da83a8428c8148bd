//! A certificate that a caller showed, for as long as his connection stays open.
//!
//! rustls verifies it in the handshake, and a connection may live for days: meanwhile the certificate can end, or its
//! authority be taken away. So it is asked about with each request. Mostly that is one comparison; it is verified again
//! by rustls once an end in its chain has come, or the authorities in force are others.
//!
//! Invariant: what a new handshake would refuse is refused here.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::danger::ClientCertVerifier,
};

use super::{current::Current, expiry::not_after};

/// How long a verification counts where no end lies ahead that could be read.
const AGAIN: Duration = Duration::from_secs(60);

/// A caller is asked to connect anew so long before his certificate ends: by then he may have another.
const SOON: Duration = Duration::from_secs(60);

/// What a caller showed.
pub struct Shown {
    /// His own certificate first.
    chain: Vec<CertificateDer<'static>>,
    current: Arc<Current>,
    /// Std lock: held for the comparison, and while rustls verifies.
    judged: Mutex<Option<Judged>>,
}

struct Judged {
    by: Arc<dyn ClientCertVerifier>,
    until: SystemTime,
}

impl Shown {
    /// What was shown in a handshake; `None` if nothing was.
    pub(super) fn new(chain: &[CertificateDer<'_>], current: &Arc<Current>) -> Option<Self> {
        let owned = |certificate: &CertificateDer<'_>| certificate.clone().into_owned();
        (!chain.is_empty()).then(|| Self {
            chain: chain.iter().map(owned).collect(),
            current: Arc::clone(current),
            judged: Mutex::default(),
        })
    }

    /// The caller's own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// Whether it would be taken in a handshake now.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, now: SystemTime) -> Result<(), String> {
        let by = self.current.callers().map_err(|error| error.to_string())?;
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |judged: &Judged| Arc::ptr_eq(&judged.by, &by) && now < judged.until;
        if judged.as_ref().is_some_and(counts) {
            return Ok(());
        }
        let time = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        by.verify_client_cert(self.certificate(), &self.chain[1..], time)
            .map_err(|error| error.to_string())?;
        let until = self.next_end(now);
        *judged = Some(Judged { by, until });
        Ok(())
    }

    /// Whether the caller had better connect anew: his certificate ends soon, and if he has another by now, he shows that.
    pub fn had_better_come_again(&self, now: SystemTime) -> bool {
        let judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        judged
            .as_ref()
            .is_some_and(|judged| judged.until <= now + SOON)
    }

    /// The first end in the chain that is still to come.
    fn next_end(&self, now: SystemTime) -> SystemTime {
        let ends = self.chain.iter().filter_map(|one| not_after(one));
        ends.filter(|end| *end > now).min().unwrap_or(now + AGAIN)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
        KeyUsagePurpose, date_time_ymd,
    };

    use super::*;
    use crate::tls::{NodeTls, TlsFiles};

    type Authority = CertifiedIssuer<'static, KeyPair>;

    impl Shown {
        /// One that counts.
        pub(crate) fn in_tests() -> Self {
            let (dir, ours) = (tempfile::tempdir().unwrap(), authority("ours"));
            let tls = NodeTls::load(files(dir.path(), &ours)).unwrap();
            tls.shown(&[signed(&ours, 2099).0]).unwrap()
        }
    }

    fn authority(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        CertifiedIssuer::self_signed(params, key).unwrap()
    }

    fn signed(by: &Authority, until: i32) -> (CertificateDer<'static>, String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, by).unwrap();
        let pem = certificate.pem();
        (certificate.der().clone(), pem, key.serialize_pem())
    }

    fn files(dir: &Path, authority: &Authority) -> TlsFiles {
        let (_, certificate, key) = signed(authority, 2099);
        let path = |name: &str| dir.join(name);
        fs::write(path("ca.pem"), authority.pem()).unwrap();
        fs::write(path("node.pem"), certificate).unwrap();
        fs::write(path("node-key.pem"), key).unwrap();
        fs::set_permissions(path("node-key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        TlsFiles {
            certificate: path("node.pem"),
            key: path("node-key.pem"),
            client_ca: Some(path("ca.pem")),
            ca: path("ca.pem"),
        }
    }

    #[test]
    fn it_counts_until_it_ends() {
        let (dir, ours) = (tempfile::tempdir().unwrap(), authority("ours"));
        let tls = NodeTls::load(files(dir.path(), &ours)).unwrap();
        let (certificate, ..) = signed(&ours, 2040);
        let shown = tls.shown(std::slice::from_ref(&certificate)).unwrap();
        let end = not_after(&certificate).unwrap();
        for (now, comes_again) in [
            (SystemTime::now(), false),
            (end - 2 * SOON, false),
            (end - SOON / 2, true),
        ] {
            assert_eq!(shown.check(now), Ok(()));
            assert_eq!(shown.had_better_come_again(now), comes_again);
        }
        for _ in 0..2 {
            let why = shown.check(end + AGAIN).unwrap_err();
            assert!(why.contains("expired"), "{why}");
        }
        assert!(tls.shown(&[]).is_none());
    }

    #[test]
    fn it_counts_while_its_authority_does() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, newer) = (authority("ours"), authority("newer"));
        let tls = NodeTls::load(files(dir.path(), &ours)).unwrap();
        let now = SystemTime::now();
        let shown = tls.shown(&[signed(&ours, 2040).0]).unwrap();
        assert_eq!(shown.check(now), Ok(()));
        fs::write(dir.path().join("ca.pem"), ours.pem() + &newer.pem()).unwrap();
        tls.reload().unwrap();
        assert_eq!(shown.check(now), Ok(()), "both count");
        files(dir.path(), &newer);
        tls.reload().unwrap();
        let why = shown.check(now).unwrap_err();
        assert!(why.contains("UnknownIssuer"), "{why}");
    }
}
