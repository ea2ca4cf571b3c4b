//! Raw bytes into a whole gateway: it answers in HTTP or closes, nothing panics, and it goes on serving.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use causeway::app::Gateway;
use causeway::config::Config;
use causeway::domain::id::TenantId;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

const THREAD: &str = "fuzzed-gateway";
/// The longest the gateway may be silent before we hang up: a stream that stays open is no fault.
const SILENCE: Duration = Duration::from_millis(150);
/// The longest it may take to say that it lives.
const PATIENCE: Duration = Duration::from_secs(30);
const MOST_BYTES: usize = 256 * 1024;

static PANICKED: AtomicBool = AtomicBool::new(false);

/// One gateway for all inputs: what one leaves behind the next one meets.
struct Served {
    address: SocketAddr,
    _gateway: Gateway,
    _runtime: Runtime,
    _data: TempDir,
}

/// What one connection sends; a byte 0xFF stands for the end of a write.
pub(crate) fn run(data: &[u8]) {
    static SERVED: OnceLock<Served> = OnceLock::new();
    let served = SERVED.get_or_init(serve);
    let answer = exchange(served.address, data);
    if !answer.is_empty() {
        assert!(answer.starts_with(b"HTTP/1.") || answer.starts_with(b"PRI * HTTP/2"), "{:?}", head(&answer));
    }
    // An answer for each request and one for what was none: requests cannot be more than their first lines.
    let sent: Vec<u8> = data.iter().copied().filter(|byte| *byte != 0xFF).collect();
    let asked = sent.windows(7).filter(|bytes| bytes.eq_ignore_ascii_case(b"HTTP/1.")).count();
    let answered =
        answer.windows(10).filter(|bytes| bytes.starts_with(b"HTTP/1.1 ") && bytes[9] != b'1').count();
    assert!(answered <= asked + 1, "{answered} answers to {asked} requests");
    assert!(!PANICKED.load(Ordering::SeqCst), "the gateway panicked");
    let alive = sign_of_life(served.address);
    assert!(alive.starts_with(b"HTTP/1.1 200"), "{:?}", head(&alive));
}

fn head(answer: &[u8]) -> String {
    String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned()
}

fn connect(address: SocketAddr, silence: Duration) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the gateway accepts");
    stream.set_read_timeout(Some(silence)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Writes the input and ends it; answers whatever came.
fn exchange(address: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut stream = connect(address, SILENCE);
    for part in data.split(|byte| *byte == 0xFF) {
        if stream.write_all(part).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    read(stream)
}

/// Asks whether it lives. The request is not ended by half a close, upon which a server may hang up.
fn sign_of_life(address: SocketAddr) -> Vec<u8> {
    let mut stream = connect(address, PATIENCE);
    let request = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).expect("the gateway reads");
    read(stream)
}

fn read(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        answer.extend_from_slice(&chunk[..read]);
        if answer.len() > MOST_BYTES {
            break;
        }
    }
    answer
}

fn serve() -> Served {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() == Some(THREAD) {
            PANICKED.store(true, Ordering::SeqCst);
        }
        before(panic);
    }));
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config::default();
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.gateway.data_dir = data.path().join("data");
    config.gateway.default_tenant = TenantId::parse("tnt_demo").ok();
    let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(THREAD).enable_all().build();
    let runtime = runtime.expect("a runtime");
    // The fuzzer's `main` is not Rust's, which would have seen to it: a client that is gone is no end of all.
    let _deaf = runtime.block_on(async { signal(SignalKind::pipe()) }).expect("a handler");
    let gateway = runtime.block_on(Gateway::start(config)).expect("the gateway starts");
    Served { address: gateway.address(), _gateway: gateway, _runtime: runtime, _data: data }
}
