//! The doors of one gateway: for clients, for peers, for operators' machines, and the control socket.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use tokio::net::UnixListener;

use super::StartError;
use super::trust::Trust;
use crate::config::Config;
use crate::http::{
    Entrance, House, Listening, Ports, Router, Services, admin_router, control_router, peer_router, router,
    serve, serve_control,
};
use crate::services::identity::Door;
use crate::tls;

/// The control socket inside the data directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// The open doors.
pub(super) struct Doors {
    pub(super) public: Listening,
    pub(super) peers: Option<Listening>,
    pub(super) admin: Option<Listening>,
}

impl Doors {
    /// Every door with a port.
    pub(super) fn all(&self) -> impl Iterator<Item = &Listening> {
        std::iter::once(&self.public).chain(&self.peers).chain(&self.admin)
    }
}

/// Opens every door the configuration asks for.
pub(super) async fn open(
    config: &Config,
    services: &Arc<Services>,
    trust: &Trust,
    house: &House,
) -> Result<Doors, StartError> {
    let server = &config.server;
    let mut entrance = Entrance::plain(Door::Public);
    if let Some(credentials) = &trust.for_clients {
        let config = tls::client_facing(Arc::clone(credentials), &house.clock);
        entrance.tls =
            Some(config.map_err(|source| StartError::Tls { key: "server.tls_cert_file", source })?);
    }
    let public =
        listen(("server.listen", server.listen), router(Arc::clone(services)), entrance, house).await?;
    tracing::info!(address = %public.address, tls = ?server.tls, "the gateway listens");
    let mut doors = Doors { public, peers: None, admin: None };
    if let Some(address) = config.peering.listen {
        let peers = for_peers(address, services, trust, house).await?;
        tracing::info!(address = %peers.address, "peers come in with mutual TLS");
        doors.peers = Some(peers);
    }
    if let Some(address) = server.admin_listen {
        let at = ("server.admin_listen", address);
        let admin =
            listen(at, admin_router(Arc::clone(services)), Entrance::plain(Door::Admin), house).await?;
        tracing::info!(address = %admin.address, "metrics and admin paths are served");
        doors.admin = Some(admin);
    }
    if matches!(house.ports, Ports::Simulated(_)) {
        return Ok(doors);
    }
    let socket = config.gateway.data_dir.join(CONTROL_SOCKET);
    match control(&socket, services, house) {
        // The system's bound on a socket's path is some hundred bytes; the API does the same.
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            tracing::warn!(path = %socket.display(), "the data directory's path is too long for a control socket: \
                operators use the API with a token");
        }
        made => made.map_err(|source| StartError::Control { path: socket, source })?,
    }
    Ok(doors)
}

async fn for_peers(
    address: SocketAddr,
    services: &Arc<Services>,
    trust: &Trust,
    house: &House,
) -> Result<Listening, StartError> {
    let authority = trust.identity.authority.clone();
    let directory = Arc::new(trust.peers.clone());
    let credentials = Arc::clone(&trust.identity.credentials);
    let config = tls::peer_facing(credentials, authority.clone(), directory, &house.clock)
        .map_err(|source| StartError::Tls { key: "peering.cert_file", source })?;
    let entrance =
        Entrance { door: Door::Peers, tls: Some(config), peers: Some((trust.peers.clone(), authority)) };
    listen(("peering.listen", address), peer_router(Arc::clone(services)), entrance, house).await
}

async fn listen(
    (key, address): (&'static str, SocketAddr),
    router: Router,
    entrance: Entrance,
    house: &House,
) -> Result<Listening, StartError> {
    let listening = serve(address, router, entrance, house).await;
    listening.map_err(|source| StartError::Listen { address, key, source })
}

/// A socket that only this user may use: whoever can change the database may as well say what to change.
pub(super) fn control(path: &Path, services: &Arc<Services>, house: &House) -> std::io::Result<()> {
    // The data directory is locked: what lies here is of a gateway that is gone.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    serve_control(listener, control_router(Arc::clone(services)), house);
    Ok(())
}
