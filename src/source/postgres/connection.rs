//! How a target's server is reached: settings of the config, else of the `uri:`, else of the
//! service file, else of the environment, turned into `PG*` variables for libpq. Nothing of it ever
//! becomes an argument, and a password lives in one child's environment alone.

use std::path::{Path, PathBuf};

use super::site::{Site, Variables};
use crate::config::model::{Databases, Postgres, Server};
use crate::config::secret::Secret;
use crate::error::{Error, Kind, Result};
use crate::host::{Context, Env};

/// libpq's parameters and their variables (PostgreSQL documentation, "Environment Variables" and
/// "Parameter Key Words"). What has no variable can't be given to a child without an argument.
const VARIABLES: [(&str, &str); 31] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("options", "PGOPTIONS"),
    ("application_name", "PGAPPNAME"),
    ("sslmode", "PGSSLMODE"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslcompression", "PGSSLCOMPRESSION"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslcertmode", "PGSSLCERTMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcrl", "PGSSLCRL"),
    ("sslcrldir", "PGSSLCRLDIR"),
    ("sslsni", "PGSSLSNI"),
    ("requirepeer", "PGREQUIREPEER"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ("gssencmode", "PGGSSENCMODE"),
    ("krbsrvname", "PGKRBSRVNAME"),
    ("gsslib", "PGGSSLIB"),
    ("gssdelegation", "PGGSSDELEGATION"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    ("require_auth", "PGREQUIREAUTH"),
];

/// In an address this names a section of the service file; it is read here and goes to no child.
const SERVICE: &str = "PGSERVICE";

/// Adds what a source of lower rank says and no higher one did. An address belongs to the host beside
/// it: it must not lead another one's host elsewhere.
fn add(settings: &mut Variables, lower: Variables) {
    if settings.contains_key("PGHOST") {
        settings.entry("PGHOSTADDR").or_default();
    }
    for (name, value) in lower {
        settings.entry(name).or_insert(value);
    }
}

/// A server and a database on it, as variables for children.
#[derive(Clone)]
pub(super) struct Connection {
    /// Variables to set; `PGPASSWORD` among them where we know one.
    variables: Variables,
}

impl Connection {
    /// Resolves a target's connection, to this database where one is given. The password is read now.
    pub(super) fn resolve(config: &Postgres, database: Option<&str>, site: &Site, cx: &Context) -> Result<Self> {
        let database = database.map(str::to_owned).or_else(|| match &config.databases {
            Databases::One(name) => name.clone(),
            Databases::Several(_) | Databases::All { .. } => None,
        });
        let way = Server {
            host: config.host.clone(),
            port: config.port,
            user: config.user.clone(),
            password: config.password.clone(),
            sslmode: config.sslmode.clone(),
            client_bin: None,
        };
        let given = given(&way, database, cx)?;
        match site {
            Site::Host(_) => Self::complete(given, config.uri.as_ref(), cx),
            Site::Inside(inside) => Self::settled(given, inside.settings()),
        }
    }

    /// Resolves the way to another server than the target's, to this database.
    pub(super) fn to_server(server: &Server, database: &str, cx: &Context) -> Result<Self> {
        Self::complete(given(server, Some(database.to_owned()), cx)?, None, cx)
    }

    /// The way to a server of our own, by its socket alone.
    pub(super) fn to_socket(directory: &Path, port: u16, user: &str, database: &str) -> Self {
        let directory = directory.to_string_lossy().into_owned();
        let pairs =
            [("PGHOST", directory), ("PGPORT", port.to_string()), ("PGUSER", user.into()), ("PGDATABASE", database.into())];
        Self { variables: pairs.into() }
    }

    /// Adds to what is given what the address, the service file and the environment say.
    fn complete(mut variables: Variables, uri: Option<&Secret>, cx: &Context) -> Result<Self> {
        let mut service = cx.env.get("PGSERVICE").filter(|service| !service.is_empty()).map(str::to_owned);
        if let Some(uri) = uri {
            let mut uri = parse_uri(&uri.reveal(cx)?)?;
            service = uri.remove(SERVICE).or(service);
            add(&mut variables, uri);
        }
        // libpq would let the service file win over the variables that we set, so it is read here.
        if let Some(service) = service {
            add(&mut variables, read_service(&service, &cx.env)?);
        }
        let of_environment = variable_names().filter_map(|name| Some((name, cx.env.get(name)?.to_owned())));
        Self::settled(variables, of_environment.collect())
    }

    /// Adds what an environment says.
    fn settled(mut variables: Variables, of_environment: Variables) -> Result<Self> {
        add(&mut variables, of_environment);
        variables.retain(|_, value| !value.is_empty());
        if !variables.contains_key("PGDATABASE") {
            return Err(Error::new(Kind::Config, "no database is named").hint("set `database:` in the target, or PGDATABASE"));
        }
        // Without it a child waits for an unreachable host for minutes.
        variables.entry("PGCONNECT_TIMEOUT").or_insert_with(|| "20".to_owned());
        Ok(Self { variables })
    }

    /// The same server, another database.
    pub(super) fn to_database(&self, database: &str) -> Self {
        let mut other = self.clone();
        other.variables.insert("PGDATABASE", database.to_owned());
        other
    }

    /// The same, with this setting in its sessions.
    pub(super) fn with_setting(&self, name: &str, value: &str) -> Self {
        let mut other = self.clone();
        let value: String = value.chars().flat_map(|c| matches!(c, ' ' | '\\').then_some('\\').into_iter().chain([c])).collect();
        let options = other.variables.entry("PGOPTIONS").or_default();
        *options = format!("{options} -c {name}={value}");
        other
    }

    /// The database.
    pub(super) fn database(&self) -> &str {
        self.variables.get("PGDATABASE").map_or("", String::as_str)
    }

    /// The role, where it is said anywhere; else libpq takes the system user's name.
    pub(super) fn user(&self) -> Option<&str> {
        self.variables.get("PGUSER").map(String::as_str)
    }

    /// For a person: `TCP to db:5432`, `the socket in /run/postgresql`.
    pub(super) fn describe(&self) -> String {
        let port = self.variables.get("PGPORT").map_or("5432", String::as_str);
        match self.variables.get("PGHOST") {
            Some(host) if host.starts_with('/') => format!("the socket in {host}, port {port}"),
            Some(host) => format!("TCP to {host}:{port}"),
            None => format!("the default socket, port {port}"),
        }
    }

    /// What gives a program this connection, under this application name.
    pub(super) fn variables(&self, application: &str) -> Variables {
        let mut variables = self.variables.clone();
        variables.insert("PGAPPNAME", application.to_owned());
        variables
    }
}

/// What the config says of a server.
fn given(way: &Server, database: Option<String>, cx: &Context) -> Result<Variables> {
    let mut given = Variables::new();
    let mut set = |name, value: Option<String>| value.map(|value| given.insert(name, value));
    set("PGHOST", way.host.clone());
    set("PGPORT", way.port.map(|port| port.to_string()));
    set("PGUSER", way.user.clone());
    set("PGSSLMODE", way.sslmode.clone());
    set("PGDATABASE", database);
    set("PGPASSWORD", way.password.as_ref().map(|password| password.reveal(cx)).transpose()?);
    Ok(given)
}

/// Reads `postgresql://[user[:password]@][host[:port][,...]][/dbname][?parameter=value&...]`. As in libpq a
/// parameter wins over what stands before it.
fn parse_uri(uri: &str) -> Result<Variables> {
    let wrong = |what: &str| {
        Error::new(Kind::Config, format!("the `uri:` can't be used: {what}"))
            .hint("it reads postgresql://user:password@host:port/database?sslmode=require, special characters as %XX")
    };
    let rest = uri.strip_prefix("postgresql://").or_else(|| uri.strip_prefix("postgres://"));
    let rest = rest.ok_or_else(|| wrong("it does not begin with postgresql://"))?;
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let mut found = Variables::new();
    let mut add = |name, value: &str| -> Result<()> {
        if !value.is_empty() {
            found.insert(name, percent_decode(value).ok_or_else(|| wrong("an escape is not %XX of UTF-8 text"))?);
        }
        Ok(())
    };
    add("PGUSER", user)?;
    add("PGPASSWORD", password)?;
    add("PGDATABASE", database)?;
    let (names, ports) = split_hosts(hosts);
    add("PGHOST", &names)?;
    add("PGPORT", &ports)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| wrong("a parameter has no value"))?;
        // The URI's own spelling of sslmode=require (JDBC's habit, which libpq takes too).
        let (name, value) = if (name, value) == ("ssl", "true") { ("sslmode", "require") } else { (name, value) };
        let variable = variable_of(name)
            .or((name == "service").then_some(SERVICE))
            .ok_or_else(|| wrong(&format!("parameter {name:?} is not known here")))?;
        add(variable, value)?;
    }
    Ok(found)
}

/// `a:1,b` to (`a,b`, `1,`), `[::1]:5432` to (`::1`, `5432`); no port at all to an empty list.
fn split_hosts(hosts: &str) -> (String, String) {
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => (address, port.strip_prefix(':').unwrap_or("")),
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    let ports = if ports.iter().all(|port| port.is_empty()) { String::new() } else { ports.join(",") };
    (names.join(","), ports)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    // A NUL would end the variable early and change its meaning.
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// All variables that libpq reads, but for the service's.
pub(super) fn variable_names() -> impl Iterator<Item = &'static str> {
    VARIABLES.iter().map(|(_, name)| *name)
}

fn variable_of(parameter: &str) -> Option<&'static str> {
    VARIABLES.iter().find(|(name, _)| *name == parameter).map(|(_, variable)| *variable)
}

/// Reads one section of the service file (PostgreSQL documentation, "The Connection Service File").
fn read_service(service: &str, env: &Env) -> Result<Variables> {
    let home = env.get("HOME").map(|home| PathBuf::from(home).join(".pg_service.conf"));
    let own = env.get("PGSERVICEFILE").map(PathBuf::from).or(home);
    let system = PathBuf::from(env.get("PGSYSCONFDIR").unwrap_or("/etc/postgresql-common")).join("pg_service.conf");
    for path in own.into_iter().chain([system]) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        if let Some(section) = service_section(&text, service) {
            return section.map_err(|parameter| {
                Error::new(Kind::Config, format!("service {service:?} in {} sets {parameter:?}", path.display()))
                    .hint("this parameter has no variable; take it out, or give the connection in the target")
            });
        }
    }
    Err(Error::new(Kind::Config, format!("no service file has the service {service:?}"))
        .hint("look into ~/.pg_service.conf or the file that PGSERVICEFILE names, or unset PGSERVICE"))
}

/// The settings of a section; `None` where there is no such section, `Err` names an unusable parameter.
fn service_section(text: &str, service: &str) -> Option<Result<Variables, String>> {
    let header = format!("[{service}]");
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != header);
    lines.next()?;
    let inside = lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = inside.map(|line| {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        variable_of(name.trim()).map(|variable| (variable, value.to_owned())).ok_or_else(|| name.to_owned())
    });
    Some(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&'static str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    #[test]
    fn a_uri_becomes_variables() {
        let found = parse_uri("postgresql://al%40ice:p%3Aw@[::1]:5433/my%20db?sslmode=verify-full&connect_timeout=3").unwrap();
        let expected = [
            ("PGUSER", "al@ice"),
            ("PGPASSWORD", "p:w"),
            ("PGDATABASE", "my db"),
            ("PGHOST", "::1"),
            ("PGPORT", "5433"),
            ("PGSSLMODE", "verify-full"),
            ("PGCONNECT_TIMEOUT", "3"),
        ];
        assert_eq!(found, settings(&expected));
        let several = parse_uri("postgres://a:1,b:2/x").unwrap();
        assert_eq!(several, settings(&[("PGHOST", "a,b"), ("PGPORT", "1,2"), ("PGDATABASE", "x")]));
        let socket = parse_uri("postgresql://%2Frun%2Fpg/x?host=/tmp&service=s").unwrap();
        assert_eq!(socket, settings(&[("PGHOST", "/tmp"), ("PGDATABASE", "x"), ("PGSERVICE", "s")]));
    }

    #[test]
    fn an_address_leads_no_other_hosts_name_elsewhere() {
        let merged = |ranks: &[&[(&'static str, &str)]]| {
            let mut all = Variables::new();
            for rank in ranks {
                add(&mut all, settings(rank));
            }
            all.remove("PGHOSTADDR").unwrap_or_default()
        };
        assert_eq!(merged(&[&[("PGHOST", "db")], &[("PGHOSTADDR", "10.0.0.1")]]), "");
        assert_eq!(merged(&[&[("PGUSER", "me")], &[("PGHOST", "db"), ("PGHOSTADDR", "10.0.0.1")]]), "10.0.0.1");
        assert_eq!(merged(&[&[], &[("PGHOST", "db")], &[("PGHOSTADDR", "10.0.0.1")]]), "");
    }

    #[test]
    fn a_wrong_uri_is_refused_without_being_shown() {
        for wrong in [
            "mysql://u:hunter2@h/d",
            "postgresql://u:hunter2@h/d?nonsense=1",
            "postgresql://u:hunter2%@h/d",
            "postgresql://u:hunter2%00@h/d",
        ] {
            let error = parse_uri(wrong).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_service_section_is_read_to_its_end_only() {
        let text = "# x\n[a]\nhost=one\n\n[b]\nhost=two\nport=5433\n[c]\nkeepalives=1\n";
        assert_eq!(service_section(text, "b"), Some(Ok(settings(&[("PGHOST", "two"), ("PGPORT", "5433")]))));
        assert_eq!(service_section(text, "c"), Some(Err("keepalives".into())));
        assert_eq!(service_section(text, "d"), None);
    }
}
