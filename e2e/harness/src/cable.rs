//! A TCP path that can be broken: silence without FIN, a cut on command, after so many bytes, in mid-body, or when idle.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What the connections are told. Connections count from 1.
#[derive(Clone, Copy, Default)]
struct Orders {
    /// Connections up to this one carry nothing any more, and nobody is told.
    silent: u64,
    /// Connections up to this one are closed.
    cut: u64,
    /// A connection is closed when nothing has passed for this long.
    idle: Option<Duration>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    ended: AtomicUsize,
    /// Bytes towards the client until the connection that carries the last of them is closed; 0: no limit.
    left: AtomicUsize,
    /// A connection that carries so many bytes towards the server without an answer is closed; 0: none.
    large: AtomicUsize,
    /// How many were closed for that.
    resets: AtomicUsize,
}

/// A path to one address. Dropping it ends it.
pub struct Cable {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

impl Cable {
    /// Listens on a free loopback port and leads to `address`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(address: &str) -> io::Result<Self> {
        Self::of(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, address)
    }

    /// From a socket that listens already.
    ///
    /// # Errors
    /// When the socket is of no use.
    pub fn of(listener: std::net::TcpListener, address: &str) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let to = address.to_owned();
        let address = listener.local_addr()?;
        let (orders, _) = watch::channel(Orders::default());
        let counts: Arc<Counts> = Arc::default();
        let (told, counting) = (orders.clone(), counts.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((tcp, _)) = accepted {
                        let number = counting.accepted.fetch_add(1, Ordering::Relaxed) + 1;
                        let (to, orders, counts) = (to.clone(), told.subscribe(), counting.clone());
                        connections.spawn(async move {
                            // Closed by either end, or by us: all the same here.
                            let _closed = carry(number, tcp, &to, orders, &counts).await;
                            counts.ended.fetch_add(1, Ordering::Relaxed);
                        });
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { address, orders, counts, _tasks: tasks })
    }

    /// `host:port` of the near end.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Packets vanish from now on, of every connection there is or will be; nobody is told.
    pub fn black_hole(&self) {
        self.orders.send_modify(|orders| orders.silent = u64::MAX);
    }

    /// New connections work again. Those that fell silent stay so.
    pub fn heal(&self) {
        let last = self.connections();
        self.orders.send_modify(|orders| orders.silent = last);
    }

    /// Closes every connection there is.
    pub fn cut(&self) {
        let last = self.connections();
        self.orders.send_modify(|orders| orders.cut = last);
    }

    /// Closes the connection that carries the `bytes`-th byte from now on towards the client, right after that byte.
    pub fn cut_after(&self, bytes: usize) {
        self.counts.left.store(bytes, Ordering::Relaxed);
    }

    /// Whether what [`Self::cut_after`] ordered has been done.
    pub fn is_cut(&self) -> bool {
        self.counts.left.load(Ordering::Relaxed) == 0
    }

    /// From now on a connection is closed when so many bytes have gone towards the server and no answer has come: the client
    /// sees a reset in the middle of a body, since the rest of it stays unread. 0 ends it.
    pub fn reset_bodies_of(&self, bytes: usize) {
        self.counts.large.store(bytes, Ordering::Relaxed);
    }

    /// How many connections that has cost.
    pub fn resets(&self) -> usize {
        self.counts.resets.load(Ordering::Relaxed)
    }

    /// Closes connections on which nothing passes for so long.
    pub fn cut_idle(&self, limit: Duration) {
        self.orders.send_modify(|orders| orders.idle = Some(limit));
    }

    /// How many connections there ever were.
    pub fn connections(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// How many of them have ended.
    pub fn ended(&self) -> usize {
        self.counts.ended.load(Ordering::Relaxed)
    }
}

async fn carry(
    number: u64,
    near: TcpStream,
    to: &str,
    mut orders: watch::Receiver<Orders>,
    counts: &Counts,
) -> io::Result<()> {
    let far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    // Towards the server since the client was last answered.
    let mut body = 0;
    loop {
        let now = *orders.borrow_and_update();
        if number <= now.cut {
            return Ok(());
        }
        if number <= now.silent {
            // Until it is cut or all is over: the sockets stay open, and nothing is read.
            orders.changed().await.map_err(io::Error::other)?;
            continue;
        }
        let step = async {
            tokio::select! {
                changed = orders.changed() => changed.map_err(io::Error::other)?,
                read = near_in.read(&mut up) => match read? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    read => {
                        body += read;
                        let large = counts.large.load(Ordering::Relaxed);
                        if large > 0 && body >= large {
                            counts.resets.fetch_add(1, Ordering::Relaxed);
                            return Err(io::ErrorKind::ConnectionAborted.into());
                        }
                        far_out.write_all(&up[..read]).await?;
                    }
                },
                read = far_in.read(&mut down) => match read? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    read => {
                        body = 0;
                        let left = counts.left.load(Ordering::Relaxed);
                        let passes = if left == 0 { read } else { read.min(left) };
                        near_out.write_all(&down[..passes]).await?;
                        if left > 0 {
                            counts.left.store(left - passes, Ordering::Relaxed);
                            if left == passes {
                                return Err(io::ErrorKind::ConnectionAborted.into());
                            }
                        }
                    }
                },
            }
            Ok::<(), io::Error>(())
        };
        match now.idle {
            Some(limit) => timeout(limit, step).await??,
            None => step.await?,
        }
    }
}
