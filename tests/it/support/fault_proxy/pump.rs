//! One direction of one connection, under the mode of the moment.
//!
//! Invariant: a piece is passed on under the mode that holds when it leaves, not when it was read; counts
//! belong to one setting and start anew with the next.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    sync::watch,
};

use super::{Direction, Ending, ProxyMode, Setting, Shared};

/// One direction of one connection.
pub(super) struct Pump {
    shared: Arc<Shared>,
    direction: Direction,
    setting: watch::Receiver<Setting>,
    /// The setting the counts below belong to.
    counted: usize,
    /// Bytes passed under it.
    passed: usize,
    /// How much of the empty line that ends a head was passed last; 4 once it was whole.
    head_end: usize,
}

/// Why a pump stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its direction ended; the other one goes on.
    Half,
    /// Both directions end.
    Whole(Ending),
}

impl Pump {
    /// The pump of this direction.
    pub(super) fn new(shared: &Arc<Shared>, direction: Direction) -> Self {
        let shared = Arc::clone(shared);
        let setting = shared.setting.subscribe();
        let counted = setting.borrow().number;
        Self { shared, direction, setting, counted, passed: 0, head_end: 0 }
    }

    /// Passes bytes on until something stops it.
    pub(super) async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Stop {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let passed = match self.read(&mut from, &mut buffer).await {
                Ok(0) => self.pass_end(&mut to).await,
                Ok(length) => self.pass(&buffer[..length], &mut to).await,
                Err(_) => Err(Stop::Whole(Ending::Reset)),
            };
            if let Err(stop) = passed {
                return stop;
            }
        }
    }

    /// Reads, unless the mode is silent.
    async fn read(&self, from: &mut ReadHalf<'_>, buffer: &mut [u8]) -> io::Result<usize> {
        until_heard(&mut self.setting.clone()).await;
        from.read(buffer).await
    }

    /// Passes the end of this direction on, once the mode lets anything pass.
    async fn pass_end(&mut self, to: &mut WriteHalf<'_>) -> Result<(), Stop> {
        let withheld =
            |setting: &Setting| matches!(setting.mode, ProxyMode::Silence | ProxyMode::BlackholeAfterHeaders);
        drop(self.setting.wait_for(|setting| !withheld(setting)).await);
        shut_down(to).await;
        Err(Stop::Half)
    }

    /// Passes a piece on as the mode says, and as the next mode says if it changes meanwhile.
    async fn pass(&mut self, mut piece: &[u8], to: &mut WriteHalf<'_>) -> Result<(), Stop> {
        while !piece.is_empty() {
            let Setting { number, mode } = self.present_setting();
            let now = match mode {
                ProxyMode::Pass | ProxyMode::Refuse => piece.len(),
                ProxyMode::Reset => return Err(Stop::Whole(Ending::Reset)),
                ProxyMode::Silence => {
                    until_heard(&mut self.setting).await;
                    continue;
                }
                ProxyMode::Dribble(pause) => {
                    if self.interrupted(pause).await {
                        continue;
                    }
                    1
                }
                ProxyMode::Delay(pause) => {
                    if self.interrupted(pause).await {
                        continue;
                    }
                    piece.len()
                }
                ProxyMode::BlackholeAfterHeaders if self.direction == Direction::ToClient => {
                    let head = self.head_bytes(piece);
                    write(to, &piece[..head]).await?;
                    return Ok(());
                }
                ProxyMode::BlackholeAfterHeaders => piece.len(),
                ProxyMode::CutAfter { direction, bytes, ending, times } if direction == self.direction => {
                    let left = bytes.saturating_sub(self.passed);
                    if piece.len() >= left && self.shared.strikes(number, times) {
                        write(to, &piece[..left]).await?;
                        return Err(cut(ending, to).await);
                    }
                    piece.len()
                }
                ProxyMode::CutAfter { .. } => piece.len(),
            };
            write(to, &piece[..now]).await?;
            self.passed += now;
            piece = &piece[now..];
        }
        Ok(())
    }

    /// The setting now; a new one starts the counts anew.
    fn present_setting(&mut self) -> Setting {
        let setting = *self.setting.borrow_and_update();
        if setting.number != self.counted {
            (self.counted, self.passed, self.head_end) = (setting.number, 0, 0);
        }
        setting
    }

    /// Waits; `true` when the mode changed instead.
    async fn interrupted(&mut self, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.setting.changed()).await.is_ok()
    }

    /// How many bytes of this piece still belong to the first head.
    fn head_bytes(&mut self, piece: &[u8]) -> usize {
        const END: &[u8] = b"\r\n\r\n";
        for (at, byte) in piece.iter().enumerate() {
            if self.head_end == END.len() {
                return at;
            }
            self.head_end = match END[self.head_end] == *byte {
                true => self.head_end + 1,
                false => usize::from(*byte == END[0]),
            };
        }
        piece.len()
    }
}

/// Waits until the mode is not silent.
pub(super) async fn until_heard(setting: &mut watch::Receiver<Setting>) {
    drop(setting.wait_for(|setting| setting.mode != ProxyMode::Silence).await);
}

async fn write(to: &mut WriteHalf<'_>, bytes: &[u8]) -> Result<(), Stop> {
    to.write_all(bytes).await.map_err(|_| Stop::Whole(Ending::Close))
}

/// Ends a connection, or its direction, at the byte where it stands.
async fn cut(ending: Ending, to: &mut WriteHalf<'_>) -> Stop {
    if ending == Ending::HalfClose {
        shut_down(to).await;
        return Stop::Half;
    }
    Stop::Whole(ending)
}

/// Sends FIN; a connection that broke before needs none.
pub(super) async fn shut_down(to: &mut (impl AsyncWriteExt + Unpin)) {
    let _broken = to.shutdown().await;
}
