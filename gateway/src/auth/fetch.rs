//! One GET of a set of keys, over TLS with the system's certificates: bounded in time and in size, and redirected nowhere.

use std::future::poll_fn;
use std::net::SocketAddr;
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

/// How long each of a name's addresses may take to be connected to: one that swallows packets, as those of version 6 often do, leaves time for the
/// next. One packet that is lost is sent again after a second.
const CONNECT_TIME_MAX: Duration = Duration::from_millis(1_500);

/// Addresses of a name that are tried.
const ADDRESSES_MAX: u32 = 4;

const _: () = {
    // There is time for the rest after the last of them.
    assert!(CONNECT_TIME_MAX.as_millis() * (ADDRESSES_MAX as u128) < FETCH_TIME_MAX.as_millis());
};

/// What stands at the address.
///
/// # Errors
/// In words: why there is nothing that could be used.
pub(super) async fn fetch(url: &JwksUrl) -> Result<Vec<u8>, String> {
    let late = || format!("there was no whole answer within {} s", FETCH_TIME_MAX.as_secs());
    tokio::time::timeout(FETCH_TIME_MAX, connect_and_get(url)).await.unwrap_or_else(|_| Err(late()))
}

async fn connect_and_get(url: &JwksUrl) -> Result<Vec<u8>, String> {
    let named = tokio::net::lookup_host((url.host.as_str(), url.port)).await;
    let named = named.map_err(|error| format!("its name is not known: {error}"))?;
    let stream = connect(in_turn(named.collect())).await?;
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

/// The addresses to try, of both versions in turn: the first that does not answer says little of the other's.
fn in_turn(named: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = named.first().is_some_and(SocketAddr::is_ipv6);
    let (ones, others): (Vec<_>, Vec<_>) =
        named.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut ones, mut others) = (ones.into_iter(), others.into_iter());
    let mut all = Vec::new();
    while all.len() < ADDRESSES_MAX as usize {
        let before = all.len();
        all.extend(ones.next());
        all.extend(others.next());
        if all.len() == before {
            break;
        }
    }
    all.truncate(ADDRESSES_MAX as usize);
    all
}

async fn connect(addresses: Vec<SocketAddr>) -> Result<TcpStream, String> {
    let mut failed = "its name has no address".to_owned();
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error.to_string(),
            Err(_) => failed = format!("{address} does not answer"),
        }
    }
    Err(format!("there is no connection: {failed}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    #[test]
    fn an_address_that_swallows_packets_leaves_time_for_the_next() {
        runtime().block_on(async {
            let any = "127.0.0.1:0".parse().expect("an address");
            // With nobody to accept, its queue is full soon, and what comes then is dropped.
            let silent = tokio::net::TcpSocket::new_v4().expect("a socket");
            silent.bind(any).expect("bound");
            let silent = silent.listen(1).expect("it listens");
            let swallowing = silent.local_addr().expect("an address");
            let mut held = Vec::new();
            let step = Duration::from_millis(100);
            while let Ok(connected) = tokio::time::timeout(step, TcpStream::connect(swallowing)).await {
                held.push(connected.expect("connected"));
                assert!(held.len() < 100, "its queue is never full");
            }
            let good = tokio::net::TcpListener::bind(any).await.expect("bound");
            let address = good.local_addr().expect("an address");
            let connected = tokio::time::timeout(FETCH_TIME_MAX, connect(vec![swallowing, address])).await;
            let stream = connected.expect("in time").expect("connected");
            assert_eq!(stream.peer_addr().expect("an address"), address);
        });
    }

    #[test]
    fn addresses_of_both_versions_are_tried_in_turn() {
        let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let v6: Vec<_> = (1..=5).map(|number| parse(&format!("[2001:db8::{number}]:443"))).collect();
        let v4 = [parse("192.0.2.1:443"), parse("192.0.2.2:443")];
        let named = |of: &[&[SocketAddr]]| in_turn(of.iter().flat_map(|of| of.iter().copied()).collect());
        assert_eq!(named(&[&v6, &v4]), [v6[0], v4[0], v6[1], v4[1]]);
        assert_eq!(named(&[&v4, &v6[..1]]), [v4[0], v6[0], v4[1]]);
        assert_eq!(named(&[&v6]), v6[..4]);
        assert!(named(&[]).is_empty());
    }
}
