//! An identity provider: answers every request with what it was told to, and counts them.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// These bytes, head and all, and then the end.
    Bytes(Vec<u8>),
    /// Nothing, for as long as the other side waits.
    Nothing,
}

impl Answer {
    /// 200 with this body.
    pub(crate) fn text(text: &str) -> Self {
        Self::with("200 OK", text)
    }

    /// This status and body.
    pub(crate) fn with(status: &str, text: &str) -> Self {
        let length = text.len();
        Self::Bytes(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{text}").into_bytes())
    }
}

/// The server, for as long as the process runs.
pub(crate) struct KeyServer {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<AtomicUsize>,
}

impl KeyServer {
    pub(crate) fn start(answer: Answer) -> Self {
        Self::start_with(answer, None)
    }

    /// Over TLS, with the certificate of the tests.
    pub(crate) fn start_tls(answer: Answer) -> Self {
        let certificate = CertificateDer::from_pem_slice(include_bytes!("tls.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls.key")).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config =
            config.expect("a version").with_no_client_auth().with_single_cert(vec![certificate], key);
        Self::start_with(answer, Some(Arc::new(config.expect("they belong together"))))
    }

    fn start_with(answer: Answer, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (answer, requests) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let (told, counted) = (answer.clone(), requests.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (told, counted, tls) = (told.clone(), counted.clone(), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(stream, &told, &counted),
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).expect("a configuration");
                        serve(rustls::StreamOwned::new(connection, stream), &told, &counted);
                    }
                });
            }
        });
        Self { address, answer, requests }
    }

    /// Its address, under a host of the caller's.
    pub(crate) fn url(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}/jwks.json?of=tests", self.address.port())
    }

    /// From the next request on.
    pub(crate) fn tell(&self, answer: Answer) {
        *self.answer.lock().expect("nobody panics") = answer;
    }

    /// Requests that have come.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// One request, as long as nobody hangs up.
fn serve(mut stream: impl Read + Write, answer: &Mutex<Answer>, requests: &AtomicUsize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
        // Another protocol: TLS where there is none.
        if head[0] != b'G' {
            return;
        }
    }
    assert!(head.starts_with(b"GET /jwks.json?of=tests HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
    requests.fetch_add(1, Ordering::SeqCst);
    let told = answer.lock().expect("nobody panics").clone();
    match told {
        Answer::Bytes(bytes) => {
            // It may have hung up: what is too long is not read to its end.
            let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
        }
        Answer::Nothing => {
            let _ = stream.read(&mut [0]);
        }
    }
}
