//! Each mode against a plain TCP target: what passes, what does not, and how the end looks from both sides.

use std::io::ErrorKind;

use tokio::{io::AsyncWriteExt, time::Instant};

use super::*;

const SHORT: Duration = Duration::from_millis(30);

/// A target, the proxy to it, and one connection through both.
struct Pair {
    listener: TcpListener,
    proxy: FaultProxy,
    client: TcpStream,
    target: TcpStream,
}

impl Pair {
    async fn connect() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let proxy = FaultProxy::start(listener.local_addr().expect("address")).await;
        let (client, target) = dial(&proxy, &listener).await;
        Self { listener, proxy, client, target }
    }
}

async fn dial(proxy: &FaultProxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let (client, accepted) = tokio::join!(TcpStream::connect(proxy.addr()), listener.accept());
    (client.expect("connected"), accepted.expect("accepted").0)
}

async fn send(socket: &mut TcpStream, text: &str) {
    socket.write_all(text.as_bytes()).await.expect("sent");
}

async fn receive(socket: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    tokio::time::timeout(Duration::from_secs(5), socket.read_exact(&mut bytes))
        .await
        .expect("in time")
        .expect("read");
    String::from_utf8(bytes).expect("text")
}

async fn is_silent(socket: &mut TcpStream) -> bool {
    tokio::time::timeout(SHORT, socket.read(&mut [0])).await.is_err()
}

/// What the next read says at the end: 0 for FIN, else the error.
async fn end_of(socket: &mut TcpStream) -> Result<usize, ErrorKind> {
    let end = tokio::time::timeout(Duration::from_secs(5), socket.read(&mut [0])).await;
    end.expect("an end").map_err(|error| error.kind())
}

fn cut(direction: Direction, bytes: usize, ending: Ending, times: Times) -> ProxyMode {
    ProxyMode::CutAfter { direction, bytes, ending, times }
}

#[tokio::test]
async fn passes_both_ways_and_counts_connections() {
    let Pair { listener, proxy, mut client, mut target } = Pair::connect().await;
    assert_eq!(proxy.base_url(), format!("http://{}", proxy.addr()));
    send(&mut client, "question").await;
    assert_eq!(receive(&mut target, 8).await, "question");
    send(&mut target, "answer").await;
    assert_eq!(receive(&mut client, 6).await, "answer");
    let _second = dial(&proxy, &listener).await;
    proxy.until_connections(2).await;
    assert_eq!((proxy.connections(), proxy.open_connections()), (2, 2));
    proxy.stop().await;
    assert_eq!(end_of(&mut client).await, Ok(0));
}

#[tokio::test]
async fn an_end_passes_on_in_its_direction_only() {
    let Pair { mut client, mut target, proxy, .. } = Pair::connect().await;
    client.shutdown().await.expect("FIN");
    assert_eq!(end_of(&mut target).await, Ok(0));
    send(&mut target, "late").await;
    assert_eq!(receive(&mut client, 4).await, "late");
    target.shutdown().await.expect("FIN");
    assert_eq!(end_of(&mut client).await, Ok(0));
    drop((client, target));
    while proxy.open_connections() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn refuses_new_connections_at_once_and_leaves_the_old() {
    let Pair { listener, proxy, mut client, mut target } = Pair::connect().await;
    proxy.set(ProxyMode::Refuse).await;
    let refused = TcpStream::connect(proxy.addr()).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    send(&mut client, "still").await;
    assert_eq!(receive(&mut target, 5).await, "still");
    proxy.set(ProxyMode::Pass).await;
    dial(&proxy, &listener).await;
}

#[tokio::test]
async fn silence_withholds_bytes_ends_and_dials_and_gives_them_back() {
    let Pair { listener, proxy, mut client, mut target } = Pair::connect().await;
    proxy.set(ProxyMode::Silence).await;
    send(&mut client, "kept").await;
    client.shutdown().await.expect("FIN");
    let _unheard = TcpStream::connect(proxy.addr()).await.expect("accepted");
    proxy.until_connections(2).await;
    assert!(is_silent(&mut target).await);
    assert!(tokio::time::timeout(SHORT, listener.accept()).await.is_err());
    proxy.set(ProxyMode::Pass).await;
    assert_eq!(receive(&mut target, 4).await, "kept");
    assert_eq!(end_of(&mut target).await, Ok(0));
    listener.accept().await.expect("dialled now");
}

#[tokio::test]
async fn cuts_each_connection_after_its_bytes_in_one_direction() {
    let Pair { listener, proxy, mut client, mut target } = Pair::connect().await;
    proxy.set(cut(Direction::ToClient, 3, Ending::Close, Times::EachConnection)).await;
    for _ in 0..2 {
        send(&mut client, "a long question").await;
        assert_eq!(receive(&mut target, 15).await, "a long question");
        send(&mut target, "answer").await;
        assert_eq!(receive(&mut client, 3).await, "ans");
        assert_eq!((end_of(&mut client).await, end_of(&mut target).await), (Ok(0), Ok(0)));
        (client, target) = dial(&proxy, &listener).await;
    }
}

#[tokio::test]
async fn bytes_count_from_when_the_mode_was_set() {
    let Pair { proxy, mut client, mut target, .. } = Pair::connect().await;
    send(&mut client, "before").await;
    assert_eq!(receive(&mut target, 6).await, "before");
    proxy.set(cut(Direction::ToTarget, 4, Ending::Close, Times::EachConnection)).await;
    send(&mut client, "question").await;
    assert_eq!(receive(&mut target, 4).await, "ques");
    assert_eq!((end_of(&mut target).await, end_of(&mut client).await), (Ok(0), Ok(0)));
}

#[tokio::test]
async fn cuts_once_before_the_first_byte_of_the_answer_by_reset() {
    let Pair { listener, proxy, mut client, mut target } = Pair::connect().await;
    proxy.set(cut(Direction::ToClient, 0, Ending::Reset, Times::Once)).await;
    send(&mut client, "question").await;
    assert_eq!(receive(&mut target, 8).await, "question");
    send(&mut target, "answer").await;
    assert_eq!(end_of(&mut client).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(end_of(&mut target).await, Err(ErrorKind::ConnectionReset));
    let (mut client, mut target) = dial(&proxy, &listener).await;
    send(&mut target, "answer").await;
    assert_eq!(receive(&mut client, 6).await, "answer");
}

#[tokio::test]
async fn half_closes_a_direction_and_keeps_the_other() {
    let Pair { proxy, mut client, mut target, .. } = Pair::connect().await;
    proxy.set(cut(Direction::ToTarget, 4, Ending::HalfClose, Times::EachConnection)).await;
    send(&mut client, "question").await;
    assert_eq!(receive(&mut target, 4).await, "ques");
    assert_eq!(end_of(&mut target).await, Ok(0));
    send(&mut target, "answer").await;
    assert_eq!(receive(&mut client, 6).await, "answer");
}

#[tokio::test]
async fn dribbles_and_delays_without_losing_a_byte() {
    let Pair { proxy, mut client, mut target, .. } = Pair::connect().await;
    proxy.set(ProxyMode::Dribble(Duration::from_millis(2))).await;
    let begun = Instant::now();
    send(&mut client, "0123456789").await;
    assert_eq!(receive(&mut target, 10).await, "0123456789");
    assert!(begun.elapsed() >= Duration::from_millis(20));
    proxy.set(ProxyMode::Delay(SHORT)).await;
    let begun = Instant::now();
    send(&mut target, "answer").await;
    assert_eq!(receive(&mut client, 6).await, "answer");
    assert!(begun.elapsed() >= SHORT);
}

#[tokio::test]
async fn a_mode_set_meanwhile_ends_the_delay() {
    let Pair { proxy, mut client, mut target, .. } = Pair::connect().await;
    proxy.set(ProxyMode::Delay(Duration::from_secs(600))).await;
    send(&mut client, "question").await;
    assert!(is_silent(&mut target).await);
    proxy.set(ProxyMode::Pass).await;
    assert_eq!(receive(&mut target, 8).await, "question");
}

#[tokio::test]
async fn swallows_everything_after_the_head_of_the_answer() {
    let Pair { proxy, mut client, mut target, .. } = Pair::connect().await;
    proxy.set(ProxyMode::BlackholeAfterHeaders).await;
    send(&mut client, "question").await;
    assert_eq!(receive(&mut target, 8).await, "question");
    for piece in ["HTTP/1.1 200 OK\r\n", "A: b\r\n\r", "\nbody", "more"] {
        send(&mut target, piece).await;
    }
    target.shutdown().await.expect("FIN");
    assert_eq!(receive(&mut client, 25).await, "HTTP/1.1 200 OK\r\nA: b\r\n\r\n");
    assert!(is_silent(&mut client).await);
}

#[tokio::test]
async fn resets_every_connection_the_old_and_the_new() {
    let Pair { proxy, mut client, mut target, .. } = Pair::connect().await;
    proxy.set(ProxyMode::Reset).await;
    assert_eq!(end_of(&mut client).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(end_of(&mut target).await, Err(ErrorKind::ConnectionReset));
    let mut client = TcpStream::connect(proxy.addr()).await.expect("accepted");
    assert_eq!(end_of(&mut client).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_reset_by_one_side_reaches_the_other() {
    let Pair { client, mut target, .. } = Pair::connect().await;
    client.set_zero_linger().expect("SO_LINGER");
    drop(client);
    assert_eq!(end_of(&mut target).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn dials_a_new_target_for_new_connections() {
    let Pair { proxy, .. } = Pair::connect().await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    proxy.retarget(elsewhere.local_addr().expect("address"));
    let (mut client, mut target) = dial(&proxy, &elsewhere).await;
    send(&mut client, "hello").await;
    assert_eq!(receive(&mut target, 5).await, "hello");
}
