//! rustls, set up as MySQL's `--ssl-mode` means it.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::error::{Error, Result};
use crate::options::{TlsMode, TlsOptions};

/// A TLS session with `host` that has not begun yet. `endpoint` names the server in errors.
pub(crate) fn session(options: &TlsOptions, host: &str, endpoint: &str) -> Result<ClientConnection> {
    let fail = |reason: String| Error::Tls { endpoint: endpoint.to_owned(), reason };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier(options, provider, &fail)?);
    let config = match (&options.cert, &options.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|error| fail(format!("{} doesn't fit {}: {error}", cert.display(), key.display())))?,
        _ => return Err(fail("a client certificate and its key are needed together".to_owned())),
    };
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        Err(_) if options.mode != TlsMode::VerifyIdentity => {
            ServerName::try_from("localhost").map_err(|error| fail(error.to_string()))?
        }
        Err(error) => return Err(fail(format!("{host} is no name that a certificate can carry: {error}"))),
    };
    ClientConnection::new(Arc::new(config), name).map_err(|error| fail(error.to_string()))
}

fn verifier(
    options: &TlsOptions,
    provider: Arc<CryptoProvider>,
    fail: &dyn Fn(String) -> Error,
) -> Result<Arc<dyn ServerCertVerifier>> {
    let check_name = match options.mode {
        TlsMode::Disabled | TlsMode::Preferred | TlsMode::Required => {
            return Ok(Arc::new(NoCheck { provider }));
        }
        TlsMode::VerifyCa => false,
        TlsMode::VerifyIdentity => true,
    };
    let pinned = if check_name {
        Vec::new()
    } else {
        options.ca.as_deref().map(certificates).transpose()?.unwrap_or_default()
    };
    let roots = Arc::new(roots(options.ca.as_deref(), fail)?);
    let inner = WebPkiServerVerifier::builder_with_provider(roots, provider)
        .build()
        .map_err(|error| fail(error.to_string()))?;
    Ok(if check_name { inner } else { Arc::new(ChainOnly { inner, pinned }) })
}

fn roots(ca: Option<&Path>, fail: &dyn Fn(String) -> Error) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| fail(format!("{} can't be trusted: {error}", path.display())))?;
        }
    } else {
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
    }
    if roots.is_empty() {
        return Err(fail("no trusted authority is known; name the server's CA file".to_owned()));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bad = |reason: String| Error::File { path: path.to_owned(), reason };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| bad(error.to_string()))?
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if found.is_empty() {
        return Err(bad("holds no certificate".to_owned()));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })
}

/// `preferred` and `required`: against listeners only, as MySQL's own client does it. Servers make their own
/// certificates at the first start, so there is nothing to check them with.
#[derive(Debug)]
struct NoCheck {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NoCheck {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // Whoever sits in the middle could show a certificate of his own, so his signature proves nothing; and
    // certificates of version 1, which old servers make, could not even be parsed here.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca`: the chain counts, the name does not.
#[derive(Debug)]
struct ChainOnly {
    inner: Arc<WebPkiServerVerifier>,
    /// The certificates of the CA file. A server that shows one of them is trusted: so people pin a self-signed one,
    /// which no chain can lead to, because it is an authority's and a server's in one.
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        // The chain is checked before the name, so a complaint about the name means that the chain was good.
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
