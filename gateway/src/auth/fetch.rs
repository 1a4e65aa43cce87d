//! One GET of a set of keys, over TLS with the system's certificates: bounded in time and in size, and redirected nowhere.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
use hyper::{Request, Response, StatusCode, body::Incoming, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::jwks::SET_BYTES_MAX;
use crate::config::JwksUrl;

/// How long all of it may take, from the name to the last byte: somebody may wait for a new key, and a new binary is given 10 s to begin.
pub(super) const FETCH_TIME_MAX: Duration = Duration::from_secs(8);

/// What stands at the address.
///
/// # Errors
/// In words: why there is nothing that could be used.
pub(super) async fn fetch(url: &JwksUrl) -> Result<Vec<u8>, String> {
    let late = || format!("there was no whole answer within {} s", FETCH_TIME_MAX.as_secs());
    tokio::time::timeout(FETCH_TIME_MAX, connect_and_get(url)).await.unwrap_or_else(|_| Err(late()))
}

async fn connect_and_get(url: &JwksUrl) -> Result<Vec<u8>, String> {
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
    let stream = stream.map_err(|error| format!("there is no connection: {error}"))?;
    if !url.is_tls {
        return get(stream, url).await;
    }
    let name =
        ServerName::try_from(url.host.clone()).map_err(|_| "the host has no name for TLS".to_owned())?;
    // Read anew each time: certificates of the system are replaced while a node runs. A disk may take its time.
    let config = tokio::task::spawn_blocking(trust)
        .await
        .map_err(|_| "reading certificates panicked".to_owned())??;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    get(stream.map_err(|error| format!("TLS was refused: {error}"))?, url).await
}

/// Trusts whom the system trusts.
fn trust() -> Result<Arc<ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(
            "this system has no certificates to trust: install ca-certificates, or set SSL_CERT_FILE"
                .to_owned(),
        );
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| format!("TLS cannot be used: {error}"))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

async fn get(stream: impl AsyncRead + AsyncWrite + Unpin, url: &JwksUrl) -> Result<Vec<u8>, String> {
    let failed = |error: hyper::Error| format!("the answer cannot be understood: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, String>(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::get(&url.target)
        .header(header::HOST, &url.authority)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, concat!("gatehouse/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(|_| "the address cannot be asked for".to_owned())?;
    let mut answer = pin!(async { read(sender.send_request(request).await.map_err(failed)?).await });
    tokio::select! {
        answer = &mut answer => answer,
        // What it had brought by then is still read.
        _ = connection => answer.await,
    }
}

async fn read(response: Response<Incoming>) -> Result<Vec<u8>, String> {
    let status = response.status();
    if status.is_redirection() {
        return Err(format!(
            "it answers {}, and redirects are not followed: name the address itself",
            status.as_u16()
        ));
    }
    if status != StatusCode::OK {
        return Err(format!("it answers {}", status.as_u16()));
    }
    let (mut body, mut text) = (response.into_body(), Vec::new());
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
        let data = frame.into_data().unwrap_or_default();
        if text.len() + data.len() > SET_BYTES_MAX {
            return Err(format!("it answers with more than {SET_BYTES_MAX} bytes"));
        }
        text.extend_from_slice(&data);
    }
    Ok(text)
}
