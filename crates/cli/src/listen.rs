//! The flags that `serve` and `attach` share: where to listen, and who may connect.

use crate::logging::LogFormat;
use clap::{Args, ValueEnum, builder::RangedU64ValueParser};
use stateroom_wasmi_server::{
    ProxyHeader, ServerConfig, TlsFiles,
    auth::{Authenticator, JwtAuthenticator, JwtError, JwtKeyFile, JwtOptions},
};
use std::{path::PathBuf, sync::Arc, time::Duration};

#[derive(Args)]
pub(crate) struct ListenArgs {
    /// File with settings, in TOML: a key for each flag, without the dashes in front
    // `settings` reads it before the flags are parsed.
    #[arg(long = "config", value_name = "FILE")]
    _config: Option<PathBuf>,
    /// Format of the log
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
    /// Address to listen on, or name whose addresses to listen on; repeatable
    #[arg(long, default_values_t = defaults().hosts)]
    host: Vec<String>,
    /// Port to listen on; 0 picks a free one
    #[arg(short, long, default_value_t = defaults().port)]
    port: u16,
    /// Seconds between two pings
    #[arg(
        short = 'i',
        long,
        default_value_t = defaults().heartbeat_interval.as_secs(),
        value_name = "SECONDS",
        value_parser = timeout_seconds(),
    )]
    heartbeat_interval: u64,
    /// Seconds without data after which a client is disconnected
    #[arg(
        short = 't',
        long,
        default_value_t = defaults().heartbeat_timeout.as_secs(),
        value_name = "SECONDS",
        value_parser = timeout_seconds(),
    )]
    heartbeat_timeout: u64,
    /// Folder to serve at / instead of the built-in page
    #[arg(long = "static", value_name = "DIR")]
    static_dir: Option<PathBuf>,
    /// Origin (scheme://host or scheme://host:port) whose pages may connect, besides the server's
    /// own; repeatable; * allows all
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Subprotocol of WebSockets that clients may choose; repeatable [default: any]
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// File with the certificate of the server, and those between it and its root, in PEM: connections
    /// use TLS; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// File with the key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Address or network (10.0.0.0/8) of a proxy that is trusted to say on whose behalf it connects;
    /// repeatable
    #[arg(long, value_name = "ADDRESS")]
    trusted_proxy: Vec<String>,
    /// How the proxies say so: what they write themselves, since they pass on the rest
    #[arg(
        long,
        value_enum,
        default_value_t = ProxyHeaderArg::XForwardedFor,
        value_name = "HEADER",
        requires = "trusted_proxy",
    )]
    proxy_header: ProxyHeaderArg,
    #[command(flatten)]
    auth: AuthArgs,
}

/// Who may connect.
#[derive(Args)]
#[command(next_help_heading = "Authentication")]
struct AuthArgs {
    /// File with the keys of the JSON Web Tokens that clients must have: a JSON Web Key Set, or a public
    /// key in PEM [default: everybody may connect]
    #[arg(long, value_name = "FILE", group = "jwt_keys")]
    auth_jwt: Option<PathBuf>,
    /// The same with a secret of 32 bytes or more, by which tokens are signed (HMAC)
    #[arg(long, value_name = "FILE", group = "jwt_keys")]
    auth_jwt_secret: Option<PathBuf>,
    /// Audience of which a token must be; repeatable [default: tokens must have no audience]
    #[arg(long, value_name = "AUDIENCE", requires = "jwt_keys")]
    auth_audience: Vec<String>,
    /// Issuer of which a token must be; repeatable [default: any]
    #[arg(long, value_name = "ISSUER", requires = "jwt_keys")]
    auth_issuer: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProxyHeaderArg {
    /// They append to the header X-Forwarded-For
    XForwardedFor,
    /// They append to the header Forwarded
    Forwarded,
    /// They begin each connection with a header of the PROXY protocol, version 1 or 2
    ProxyProtocol,
}

impl AuthArgs {
    fn authenticator(self) -> Result<Option<Arc<dyn Authenticator>>, JwtError> {
        let secret = self.auth_jwt_secret.map(JwtKeyFile::Secret);
        let Some(file) = self.auth_jwt.map(JwtKeyFile::Keys).or(secret) else {
            return Ok(None);
        };
        let mut options = JwtOptions::default();
        options.audiences = self.auth_audience;
        options.issuers = self.auth_issuer;
        let authenticator = JwtAuthenticator::open(file, options)?;
        Ok(Some(Arc::new(authenticator)))
    }
}

impl ListenArgs {
    pub(crate) fn apply(self, config: ServerConfig) -> Result<ServerConfig, JwtError> {
        let mut config = config
            .hosts(self.host)
            .port(self.port)
            .heartbeat_interval(Duration::from_secs(self.heartbeat_interval))
            .heartbeat_timeout(Duration::from_secs(self.heartbeat_timeout))
            .allowed_origins(self.allow_origin)
            .subprotocols(self.subprotocol)
            .tls(
                self.tls_cert
                    .zip(self.tls_key)
                    .map(|(certificate, key)| TlsFiles { certificate, key }),
            )
            .trusted_proxies(self.trusted_proxy)
            .proxy_header(match self.proxy_header {
                ProxyHeaderArg::XForwardedFor => ProxyHeader::XForwardedFor,
                ProxyHeaderArg::Forwarded => ProxyHeader::Forwarded,
                ProxyHeaderArg::ProxyProtocol => ProxyHeader::ProxyProtocol,
            })
            .authenticator(self.auth.authenticator()?);
        config.static_dir = self.static_dir;
        Ok(config)
    }
}

/// The source of the flags' defaults.
pub(crate) fn defaults() -> ServerConfig {
    ServerConfig::new([])
}

/// At least one second, and no more than a timer can take.
pub(crate) fn timeout_seconds() -> RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=u32::MAX.into())
}
