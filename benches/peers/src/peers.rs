//! The other servers: what they are called, how they are set up, and where. Each gets a directory of its own,
//! a free port, and settings that favour it where the default would stop it (limits, logs).

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Server, command, free_address, is_installed};

/// A server to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The least that does the same with Causeway's libraries: `bin/bare.rs`.
    Bare,
    /// NATS: core, or JetStream where something is kept.
    Nats,
    Redis,
    Postgres,
    /// nginx with nchan.
    Nchan,
    Nginx,
    Haproxy,
}

/// Whether what is acknowledged is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    Nothing,
    /// Written, and synced some time later.
    Written,
    Synced,
}

/// Connections that servers are made to bear.
const CONNECTIONS: usize = 16_384;
/// Where Debian keeps the module.
const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
const POSTGRES_USER: &str = "postgres";

impl Peer {
    /// The program, by name or by path.
    fn program(self) -> String {
        match self {
            Peer::Bare => bare_program().display().to_string(),
            Peer::Nats => "nats-server".to_owned(),
            Peer::Redis => "redis-server".to_owned(),
            Peer::Postgres => postgres_program("postgres").display().to_string(),
            Peer::Nchan | Peer::Nginx => "nginx".to_owned(),
            Peer::Haproxy => "haproxy".to_owned(),
        }
    }

    /// True when it can be started here.
    pub fn is_there(self) -> bool {
        is_installed(&self.program()) && (self != Peer::Nchan || Path::new(NCHAN_MODULE).is_file())
    }

    /// True when its followers read server-sent events.
    pub fn is_http(self) -> bool {
        matches!(self, Peer::Bare | Peer::Nchan)
    }

    /// What it says its version is.
    pub fn version(self) -> String {
        let flag = if matches!(self, Peer::Nginx | Peer::Nchan | Peer::Haproxy | Peer::Nats) {
            "-v"
        } else {
            "--version"
        };
        let said = Command::new(self.program()).arg(flag).output();
        let said = said.map(|said| [said.stdout, said.stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned()
    }

    /// Starts one that relays to `origin`, where it is one that relays.
    pub async fn start(self, parent: &Path, keeping: Keeping, origin: Option<SocketAddr>) -> Result<Running> {
        let directory = tempfile::Builder::new().prefix("peer-").tempdir_in(parent)?;
        // Servers that give up root must still find their files.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let (at, address) = (directory.path(), free_address()?);
        let end = if self == Peer::Postgres { Signal::INT } else { Signal::TERM };
        let command = match self {
            Peer::Bare => bare(at, address, origin, end),
            Peer::Nats => nats(at, address, keeping, end)?,
            Peer::Redis => redis(at, address, keeping, end),
            Peer::Postgres => postgres(at, address, keeping, end)?,
            Peer::Nchan => nginx(at, &format!("load_module {NCHAN_MODULE};"), &nchan(address), end)?,
            Peer::Nginx => nginx(at, "", &relay(address, origin.context("nothing to relay to")?), end)?,
            Peer::Haproxy => haproxy(at, address, origin.context("nothing to relay to")?, end)?,
        };
        let server = Server::start(command, address, at, end).await?;
        Ok(Running { server, _directory: directory })
    }
}

/// A server and its directory; both go together, the server first.
#[derive(Debug)]
pub struct Running {
    pub server: Server,
    _directory: TempDir,
}

/// It is built with this program, and lies beside it.
fn bare_program() -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name("bare")
}

fn bare(at: &Path, address: SocketAddr, origin: Option<SocketAddr>, end: Signal) -> Command {
    let mut command = command(&Peer::Bare.program(), end, None);
    command.args(["--listen", &address.to_string(), "--dir", &at.display().to_string()]);
    if let Some(origin) = origin {
        command.args(["--origin", &origin.to_string()]);
    }
    command
}

fn nats(at: &Path, address: SocketAddr, keeping: Keeping, end: Signal) -> Result<Command> {
    let sync = if keeping == Keeping::Synced { "sync_interval: always" } else { "" };
    let jetstream = match keeping {
        Keeping::Nothing => String::new(),
        _ => format!("jetstream {{ store_dir: \"{}\", {sync} }}\n", at.join("store").display()),
    };
    let config = format!(
        "listen: \"{address}\"\nmax_connections: {CONNECTIONS}\nmax_pending: 1GB\nping_interval: \"1h\"\n{jetstream}"
    );
    with_file("nats-server", &["-c"], &at.join("nats.conf"), &config, end)
}

fn redis(at: &Path, address: SocketAddr, keeping: Keeping, end: Signal) -> Command {
    let mut command = command("redis-server", end, None);
    let append = if keeping == Keeping::Nothing { "no" } else { "yes" };
    let sync = if keeping == Keeping::Synced { "always" } else { "everysec" };
    command
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
        .args(["--dir", &at.display().to_string(), "--save", "", "--maxclients", "12000"])
        // Rewriting the file would be measured in some rounds and not in others.
        .args(["--appendonly", append, "--appendfsync", sync, "--auto-aof-rewrite-percentage", "0"]);
    command
}

fn postgres(at: &Path, address: SocketAddr, keeping: Keeping, end: Signal) -> Result<Command> {
    let data = at.join("data");
    fs::create_dir(&data)?;
    let user = rustix::process::geteuid().is_root().then_some(POSTGRES_USER);
    if let Some(user) = user {
        let id = Command::new("id").args(["-u", user]).output()?.stdout;
        let id = String::from_utf8(id)?.trim().parse().context("there is no user postgres")?;
        chown(&data, Some(id), None)?;
    }
    let data = data.display().to_string();
    let mut initdb = command(&postgres_program("initdb").display().to_string(), end, user);
    let made = initdb
        .current_dir(at)
        .args(["-D", &data, "-U", POSTGRES_USER, "-A", "trust", "--no-sync"])
        .output()?;
    ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    let mut command = command(&Peer::Postgres.program(), end, user);
    let commit = if keeping == Keeping::Synced { "on" } else { "off" };
    command.args(["-D", &data, "-p", &address.port().to_string()]);
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "shared_buffers=512MB",
        "max_wal_size=4GB",
        &format!("synchronous_commit={commit}"),
    ] {
        command.args(["-c", setting]);
    }
    Ok(command)
}

/// Where Debian keeps the programs of the newest PostgreSQL, which are not in the path.
fn postgres_program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.max_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().unwrap_or(0));
    newest.map_or_else(|| PathBuf::from(name), |entry| entry.path().join("bin").join(name))
}

fn nginx(at: &Path, module: &str, http: &str, end: Signal) -> Result<Command> {
    let config = format!(
        "daemon off;\nworker_processes auto;\npid nginx.pid;\nerror_log stderr warn;\n{module}\n\
         events {{ worker_connections {CONNECTIONS}; }}\nhttp {{\naccess_log off;\nkeepalive_requests 1000000000;\n\
         client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\n\
         scgi_temp_path scgi;\n{http}}}\n"
    );
    let mut command = with_file("nginx", &["-c"], &at.join("nginx.conf"), &config, end)?;
    command.arg("-p").arg(at);
    Ok(command)
}

fn nchan(address: SocketAddr) -> String {
    format!(
        "nchan_shared_memory_size 512m;\nserver {{ listen {address};\n\
         location = /publish {{ nchan_publisher; nchan_channel_id bench; nchan_message_buffer_length 1000; }}\n\
         location = /events {{ nchan_subscriber eventsource; nchan_channel_id bench; \
         nchan_subscriber_first_message oldest; }}\n}}\n"
    )
}

fn relay(address: SocketAddr, origin: SocketAddr) -> String {
    format!(
        "upstream origin {{ server {origin}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{ listen {address};\nlocation / {{ proxy_pass http://origin; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; proxy_buffering off; }}\n}}\n"
    )
}

fn haproxy(at: &Path, address: SocketAddr, origin: SocketAddr, end: Signal) -> Result<Command> {
    // Without `http-no-delay` it holds small chunks back, for a tenth of a second and more.
    let config = format!(
        "global\n maxconn 8000\ndefaults\n mode http\n option http-no-delay\n http-reuse always\n timeout connect 5s\n \
         timeout client 1h\n timeout server 1h\nfrontend here\n bind {address}\n default_backend origin\n\
         backend origin\n server origin {origin}\n"
    );
    with_file("haproxy", &["-db", "-f"], &at.join("haproxy.cfg"), &config, end)
}

fn with_file(program: &str, flags: &[&str], file: &Path, config: &str, end: Signal) -> Result<Command> {
    fs::write(file, config)?;
    let mut command = command(program, end, None);
    command.args(flags).arg(file);
    Ok(command)
}
