//! The admin server: is the node alive, should clients come, what did it count; "drain now", "take these
//! tokens back" and "erase this".
//!
//! HTTP/1.1 on the control thread, for a handful of local or trusted callers. Reading is atomics and never
//! asks a shard, so a busy node answers and a scrape costs the shards nothing; it is open to whoever reaches
//! the address. Changing something takes the admin token.
//!
//! Invariant: one caller holds at most one of `CONNECTIONS_MAX` places, for at most
//! `CONNECTION_TIME_MAX`, whatever it sends or does not read.

use std::{
    fmt,
    fmt::Write as _,
    future::Future,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{self, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, RwLock, Semaphore},
    time,
};

use crate::{
    auth::{AdminToken, Entry, Revocation},
    clock::unix_now,
    erasures::{Asked, EraseError, Erasure, Erasures},
    metrics::{self, CareMetrics, KeyMetrics, PushMetrics, SearchMetrics, ShardMetrics},
    revocations::{ENTRIES_MAX, Revocations, RevokeError, Revoked},
    state::NodeState,
    upgrade::leaving::Upgraded,
};

/// Callers at once. Probes and scrapers are few; the next one waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// From the first byte we wait for to the end of a request's head, and between two requests.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// A whole connection, however it is used: a place is free again after this long.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// Head and body buffer of one connection. A request of ours is a few hundred bytes.
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// Body of one request. A revocation is a few hundred bytes.
const BODY_BYTES_MAX: usize = 4 * 1024;
/// What an answer that is on its way gets when the node ends.
const END_TIME_MAX: Duration = Duration::from_secs(2);
/// After accept failed, usually for want of descriptors: trying at once would only burn the core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = "GET  /livez      the process runs\n\
                     GET  /readyz     new clients are welcome; 503 and the reasons if not\n\
                     GET  /metrics    Prometheus\n\
                     POST /v1/drain   leave in order; needs: Authorization: Bearer <admin token>\n\
                     POST /v1/upgrade start the program's file anew and hand everybody over to it; needs the same\n\
                     POST /v1/revoke  take tokens back; needs the same, and one of\n\
                     \x20                {\"user\":NAME} {\"user\":NAME,\"issued_before\":TIME} {\"jti\":ID}\n\
                     \x20                {\"issued_before\":TIME}, each perhaps with \"until\":TIME, in seconds since 1970\n\
                     POST /v1/erase   make content unreadable, and have it written out of all files; needs the same, and one of\n\
                     \x20                {\"user\":NAME} {\"conversation\":ID} {\"conversation\":ID,\"below\":SEQ}\n\
                     GET  /v1/erase   how far that is; needs the same\n";

/// What the admin server shows and can do.
#[derive(Clone)]
pub struct AdminContext {
    /// How the node is.
    pub state: Arc<NodeState>,
    /// What its shards count, in their order.
    pub metrics: Vec<Arc<ShardMetrics>>,
    /// What the caretaker counts.
    pub care: Arc<CareMetrics>,
    /// What is counted of keys that change.
    pub keys: Arc<KeyMetrics>,
    /// What is counted of search, on a node that has it.
    pub search: Option<Arc<SearchMetrics>>,
    /// Of push calls, where there are any.
    pub pushes: Option<Arc<PushMetrics>>,
    /// Who may change something.
    pub admin_token: Arc<AdminToken>,
    /// What may be asked for, from when there are shards to do it.
    pub commands: Arc<OnceLock<Commands>>,
}

/// What operators can have the shards do.
pub struct Commands {
    /// What was revoked, and where more of it goes.
    pub revocations: Arc<Revocations>,
    /// What was erased, and where more of it goes.
    pub erasures: Arc<Erasures>,
    /// Hands over to a new process. Blocks.
    pub upgrade: Arc<dyn Fn() -> anyhow::Result<Upgraded> + Send + Sync>,
    /// Held while something is changed that the new process reads from a file.
    pub changes: Arc<RwLock<()>>,
    /// Begins the drain. May be called again while it goes on.
    pub drain: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Commands")
    }
}

impl fmt::Debug for AdminContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdminContext({} shards)", self.metrics.len())
    }
}

/// Serves until `shutdown` is done, then lets answers that are on their way finish, for 2 s at most.
pub async fn serve(listener: TcpListener, context: AdminContext, shutdown: impl Future<Output = ()>) {
    let state = context.state.clone();
    let mut door = state.door.watch();
    let router = router(context);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let shut = *door.borrow_and_update();
        state.door.note(shut);
        let next = tokio::select! {
            () = &mut shutdown => break,
            _ = door.changed() => continue,
            next = accept(&listener, &places), if !shut => next,
        };
        match next {
            Ok((stream, place)) => serve_one(stream, place, &router, &graceful),
            Err(error) => {
                tracing::warn!(%error, "the admin server could not accept a connection; it tries again");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Nobody can connect any more while the last answers leave.
    drop(listener);
    if time::timeout(END_TIME_MAX, graceful.shutdown()).await.is_err() {
        tracing::debug!("some admin connections were cut at the end");
    }
}

/// A place first and then a connection, so that nobody is accepted who would have to wait inside.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

fn serve_one(stream: TcpStream, place: OwnedSemaphorePermit, router: &Router, graceful: &GracefulShutdown) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
    let watched = graceful.watch(connection);
    tokio::spawn(async move {
        // A peer that is slow, broken or gone is nobody's concern but its own.
        let _ = time::timeout(CONNECTION_TIME_MAX, watched).await;
        drop(place);
    });
}

fn router(context: AdminContext) -> Router {
    Router::new()
        .route("/", routing::get(|| async { text(StatusCode::OK, INDEX.to_owned()) }))
        .route("/livez", routing::get(|| async { text(StatusCode::OK, "ok\n".to_owned()) }))
        .route("/readyz", routing::get(readyz))
        .route("/metrics", routing::get(render_metrics))
        .route("/v1/drain", routing::post(drain))
        .route("/v1/upgrade", routing::post(upgrade))
        .route("/v1/revoke", routing::post(revoke))
        .route("/v1/erase", routing::post(erase).get(report_erasures))
        .fallback(|| async {
            text(StatusCode::NOT_FOUND, format!("there is no such path; there are:\n{INDEX}"))
        })
        .with_state(context)
}

async fn readyz(State(context): State<AdminContext>) -> Response {
    match context.state.is_ready() {
        Ok(()) => {
            let lines = format!(
                "ready\n{}{}{}{}",
                context.state.degraded(),
                context.care.held_back(),
                context.care.full_disk(),
                context.state.without_next_segment()
            );
            text(StatusCode::OK, lines)
        }
        Err(reasons) => text(StatusCode::SERVICE_UNAVAILABLE, reasons),
    }
}

async fn render_metrics(State(context): State<AdminContext>) -> Response {
    let mut page = String::with_capacity(32 * 1024);
    context.state.render(&mut page);
    metrics::render(&context.metrics, &mut page);
    context.care.render(&mut page);
    context.keys.render(&mut page);
    if let Some(search) = &context.search {
        search.render(&mut page);
    }
    if let Some(pushes) = &context.pushes {
        pushes.render(&mut page);
    }
    if let Some(Commands { revocations, erasures, .. }) = context.commands.get() {
        let (pending, done) = erasures.counts();
        let _ = write!(
            page,
            "# HELP gatehouse_revocations Users and tokens that are revoked; at most {ENTRIES_MAX}, and one more for all.\n\
             # TYPE gatehouse_revocations gauge\n\
             gatehouse_revocations {}\n\
             # HELP gatehouse_erasures Erasures that are kept, by whether what they erased is gone from all files.\n\
             # TYPE gatehouse_erasures gauge\n\
             gatehouse_erasures{{state=\"pending\"}} {pending}\n\
             gatehouse_erasures{{state=\"done\"}} {done}\n",
            revocations.count()
        );
    }
    ([(header::CONTENT_TYPE, PROMETHEUS)], page).into_response()
}

async fn drain(State(context): State<AdminContext>, headers: HeaderMap) -> Response {
    let commands = match context.commands_for(&headers, "a drain") {
        Ok(commands) => commands,
        Err(refusal) => return *refusal,
    };
    tracing::info!("an operator asked for a drain");
    (commands.drain)();
    text(StatusCode::ACCEPTED, "draining\n".to_owned())
}

/// Answers when it is done, or given up: then this process serves on.
async fn upgrade(State(context): State<AdminContext>, headers: HeaderMap) -> Response {
    let upgrade = match context.commands_for(&headers, "an upgrade") {
        Ok(commands) => commands.upgrade.clone(),
        Err(refusal) => return *refusal,
    };
    match tokio::task::spawn_blocking(move || upgrade()).await {
        Ok(Ok(upgraded)) => Json(upgraded).into_response(),
        Ok(Err(error)) => refuse(StatusCode::CONFLICT, &format!("{error:#}")),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the upgrade was given up"),
    }
}

/// What a revocation came to.
#[derive(Serialize)]
struct RevokedAnswer {
    revoked: Entry,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions_closed: Option<u64>,
}

async fn revoke(State(context): State<AdminContext>, request: Request) -> Response {
    let (commands, body) = match context.asked(request, "a revocation").await {
        Ok(asked) => asked,
        Err(refusal) => return *refusal,
    };
    // What the next process reads from files does not change under it.
    let Ok(unchanged) = commands.changes.clone().try_read_owned() else { return upgrading() };
    let now = unix_now().0 / 1000;
    let asked = match Revocation::asked(&body, now) {
        Ok(asked) => asked,
        Err(reason) => return refuse(StatusCode::BAD_REQUEST, &reason),
    };
    match commands.revocations.revoke(asked, now, unchanged).await {
        Ok(Revoked { revocation, sessions_closed }) => {
            Json(RevokedAnswer { revoked: revocation.entry(), sessions_closed }).into_response()
        }
        Err(error) => {
            let status = match error {
                RevokeError::Full => StatusCode::INSUFFICIENT_STORAGE,
                RevokeError::NotDurable(_) => StatusCode::INTERNAL_SERVER_ERROR,
                RevokeError::Stopping | RevokeError::Untold => StatusCode::SERVICE_UNAVAILABLE,
            };
            refuse(status, &error.to_string())
        }
    }
}

/// What an erasure came to.
#[derive(Serialize)]
struct ErasedAnswer {
    erased: Asked,
    asked_at: u64,
}

async fn erase(State(context): State<AdminContext>, request: Request) -> Response {
    let (commands, body) = match context.asked(request, "an erasure").await {
        Ok(asked) => asked,
        Err(refusal) => return *refusal,
    };
    let subject = match Asked::read(&body) {
        Ok(subject) => subject,
        Err(reason) => return refuse(StatusCode::BAD_REQUEST, &reason),
    };
    let Ok(unchanged) = commands.changes.clone().try_read_owned() else { return upgrading() };
    match commands.erasures.erase(subject, unchanged).await {
        Ok(Erasure { asked_at, subject, .. }) => {
            Json(ErasedAnswer { erased: Asked::of(&subject), asked_at }).into_response()
        }
        Err(error) => {
            let status = match error {
                EraseError::Full => StatusCode::INSUFFICIENT_STORAGE,
                EraseError::NotDurable(_) => StatusCode::INTERNAL_SERVER_ERROR,
                EraseError::Stopping | EraseError::Untold => StatusCode::SERVICE_UNAVAILABLE,
            };
            refuse(status, &error.to_string())
        }
    }
}

/// Whom and what was erased is not for everybody to read.
async fn report_erasures(State(context): State<AdminContext>, headers: HeaderMap) -> Response {
    match context.commands_for(&headers, "the report of erasures") {
        Ok(commands) => Json(commands.erasures.report().await).into_response(),
        Err(refusal) => *refusal,
    }
}

impl AdminContext {
    /// What operators can have done, for who shows that it is one; or why not.
    fn commands_for(&self, headers: &HeaderMap, what: &str) -> Result<&Commands, Box<Response>> {
        let offered = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        if !offered.is_some_and(|offered| self.admin_token.matches(offered)) {
            return Err(Box::new(unauthorised(what)));
        }
        self.commands.get().ok_or_else(|| Box::new(too_early()))
    }

    /// The same, and what is asked for, which is read only then.
    async fn asked(&self, request: Request, what: &str) -> Result<(&Commands, Bytes), Box<Response>> {
        let commands = self.commands_for(request.headers(), what)?;
        let body = body::to_bytes(request.into_body(), BODY_BYTES_MAX).await.map_err(|_| {
            let reason = format!("the body is larger than {BODY_BYTES_MAX} bytes, or did not come whole");
            Box::new(refuse(StatusCode::BAD_REQUEST, &reason))
        })?;
        Ok((commands, body))
    }
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    text(status, format!("{reason}\n"))
}

/// For some milliseconds, between two processes.
fn upgrading() -> Response {
    refuse(
        StatusCode::SERVICE_UNAVAILABLE,
        "an upgrade is under way and nothing was done: ask again in a second",
    )
}

fn unauthorised(what: &str) -> Response {
    tracing::warn!("{what} was asked for without the admin token; nothing was done");
    let reason = "this needs `Authorization: Bearer` and the admin token; it stands in the file of the setting \
                  `admin_token_file`, or in admin.token of the data directory\n";
    let refusal = text(StatusCode::UNAUTHORIZED, reason.to_owned());
    ([(header::WWW_AUTHENTICATE, "Bearer")], refusal).into_response()
}

/// Nobody is connected yet, and there is no shard that could be told anything.
fn too_early() -> Response {
    let reason =
        "recovering: nothing was done; ask again when /readyz says ready, or end the process with SIGTERM\n";
    text(StatusCode::SERVICE_UNAVAILABLE, reason.to_owned())
}

/// The credentials of `Bearer`, whose name is compared without regard to case (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, credentials) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| credentials.trim_ascii())
}

fn text(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, TEXT)], body).into_response()
}
