//! Where a drill restores to: a server of its own, the target's, or another. It touches no database without our
//! mark, and what it restores acts nowhere outside unless the user allows it.

use std::io::{self, Write};

use super::arrival::Arrival;
use super::client::{Programs, Psql, Version, quote_identifier};
use super::cluster::{Cluster, FoundContainer, ServerPrograms, find_server_programs, warn_of};
use super::connection::Connection;
use super::facts::RestoreFacts;
use super::globals::Replay;
use super::inside;
use super::parallel;
use super::scratch::{creation_options, drill_name};
use super::site::Site;
use super::{MAINTENANCE, Postgres, application_of_restore, load, maintenance, restore_facts};
use crate::config::model::{self, DrillPlace};
use crate::error::{Error, Kind, Result, from_io};
use crate::host::Context;
use crate::observe::Event;
use crate::source::{Comparison, Inventory, Landing, Published, Sink, Staged};

/// Extensions that bring background workers, or that act on other servers or outside of their database.
const WORKERS: [&str; 14] = [
    "bdr",
    "citus",
    "pg_auto_failover",
    "pg_background",
    "pg_cron",
    "pg_net",
    "pg_partman",
    "pg_squeeze",
    "pgagent",
    "pgautofailover",
    "pglogical",
    "pglogical_origin",
    "spock",
    "timescaledb",
];

/// Looks whether a drill could be held; makes nothing.
pub(super) fn check(source: &Postgres, landing: &Landing<'_>, cx: &Context) -> Result<Vec<String>> {
    match temporary(source, landing, cx)? {
        Some(Temporary::Here) => server_programs(source, landing, cx).map(|(_, warnings)| warnings),
        Some(Temporary::Container(_)) => {
            let jobs = landing.options.jobs.or(source.config.jobs).filter(|jobs| jobs.get() > 1);
            let has_none = jobs.is_some() && landing.facts.format == load::CUSTOM;
            Ok(has_none.then(|| parallel::no_file_in("the drill's container")).into_iter().collect())
        }
        None => on_server(source, landing, cx).map(|arrival| arrival.warnings),
    }
}

/// A server for the drill alone.
enum Temporary {
    /// On this machine.
    Here,
    /// In a container of the same image as this one.
    Container(FoundContainer),
}

/// Which is made; none where the drill goes to a server that lives. Roles and tablespaces have no scratch place on one that
/// is in use.
fn temporary(source: &Postgres, landing: &Landing<'_>, cx: &Context) -> Result<Option<Temporary>> {
    let is_globals = landing.unit.is_globals();
    match (&source.config.drill.place, &source.config.container) {
        (DrillPlace::Temporary, _) => Ok(Some(Temporary::Here)),
        (DrillPlace::Container, Some(container)) => alike(container, cx).map(Temporary::Container).map(Some),
        (_, Some(container)) if is_globals => alike(container, cx).map(Temporary::Container).map(Some),
        (_, None) if is_globals => Ok(Some(Temporary::Here)),
        _ => Ok(None),
    }
}

/// The target's container, running or not, whose image is on this machine.
fn alike(wanted: &model::Container, cx: &Context) -> Result<FoundContainer> {
    let otherwise = "without it, drill with programs of this machine: `drill: { cluster: temporary }`";
    let found = inside::find(wanted, cx).map_err(|error| {
        let hint = error.hint_text().map_or(otherwise.to_owned(), |hint| format!("{hint}; {otherwise}"));
        error.hint(hint).step("place")
    })?;
    let (engine, container) = &found;
    if engine.image(&container.image, cx)?.is_none() {
        let cause = format!("the image of container {} is not on this machine any more", container.name);
        return Err(Error::new(Kind::Child, cause).hint(format!("make the container anew; {otherwise}")).step("place"));
    }
    Ok(found)
}

/// Makes the scratch place of a drill.
pub(super) fn stage(source: &Postgres, landing: &Landing<'_>, cx: &Context) -> Result<Box<dyn Sink>> {
    if let Some(temporary) = temporary(source, landing, cx)? {
        return in_temporary(source, &temporary, landing, cx);
    }
    let arrival = on_server(source, landing, cx)?;
    let is_alike = is_alike(landing, arrival.server_major);
    let place = match &source.config.drill.place {
        DrillPlace::Server(_) => format!("a scratch database over {}", arrival.admin.describe()),
        _ => "a scratch database on the target's server".into(),
    };
    into(arrival, Place { text: place, warnings: Vec::new(), cluster: None, is_alike, cx: cx.clone() })
}

/// The arrival in a marked scratch database on a server that lives.
fn on_server(source: &Postgres, landing: &Landing<'_>, cx: &Context) -> Result<Arrival> {
    let facts = restore_facts(landing.facts)?;
    if !source.config.drill.allow_outbound {
        refuse_outbound(&facts)?;
    }
    let admin = match &source.config.drill.place {
        DrillPlace::Server(server) => {
            let connection = Connection::to_server(server, MAINTENANCE[0], cx).map_err(|error| error.step("connect"))?;
            let client_bin = server.client_bin.as_ref().or(source.config.client_bin.as_ref());
            let found = Programs::look("psql", &Site::Host(client_bin.cloned()), cx)?;
            maintenance(&found, &Psql { client: found.newest()?, connection, application: application_of_restore()? }, cx)?
        }
        _ => source.admin(application_of_restore()?, &source.site(cx)?, cx)?,
    };
    let name = drill_name(landing.facts.database.as_deref().unwrap_or("database"))?;
    source.arrive(admin, &name, landing, facts, cx)
}

/// Refuses what would act outside of its database on a server that is in use, and names it.
fn refuse_outbound(facts: &RestoreFacts) -> Result<()> {
    let workers = facts.extensions.iter().filter_map(|extension| {
        let name = extension.rsplit_once(' ').map_or(extension.as_str(), |(name, _)| name);
        WORKERS.contains(&name).then(|| format!("extension {name}"))
    });
    let named = |what: &'static str, names: &Option<Vec<String>>| match names {
        Some(names) => names.iter().map(|name| format!("{what} {}", quote_identifier(name))).collect(),
        None => vec![format!("perhaps a {what} (its manifest is of an earlier version, and does not say)")],
    };
    let mut found = named("subscription", &facts.subscriptions);
    found.extend(named("foreign server", &facts.foreign_servers));
    found.extend(workers);
    if found.is_empty() {
        return Ok(());
    }
    let cause = format!("restored on a server that is in use, this would act outside of its database: {}", found.join(", "));
    let hint = "drill in a temporary server (take out `server:` or `host:` of `drill:`), or set `allow_outbound: true` there";
    Err(Error::new(Kind::Refused, cause).hint(hint).step("place"))
}

/// The server programs for a dump, and what is to be said of them.
fn server_programs(source: &Postgres, landing: &Landing<'_>, cx: &Context) -> Result<(ServerPrograms, Vec<String>)> {
    let wanted = landing.facts.server_version.as_deref().and_then(Version::parse);
    let programs = find_server_programs(source.config.client_bin.as_deref(), wanted.as_ref(), cx)?;
    let newer = wanted.filter(|wanted| wanted.major != programs.version.major).map(|wanted| {
        format!(
            "the temporary server is version {}, as there are no server programs of version {} on this machine: the drill \
             shows that the dump restores into the newer one",
            programs.version.text, wanted.major
        )
    });
    Ok((programs, newer.into_iter().collect()))
}

/// Makes a server for the drill alone, and what the dump names on it.
fn in_temporary(source: &Postgres, which: &Temporary, landing: &Landing<'_>, cx: &Context) -> Result<Box<dyn Sink>> {
    let mut facts = restore_facts(landing.facts)?;
    let application = application_of_restore()?;
    let cluster = match which {
        Temporary::Here => {
            let (programs, _) = server_programs(source, landing, cx)?;
            Cluster::start(&programs, &Site::Host(source.config.client_bin.clone()), application, landing.bytes, cx)?
        }
        Temporary::Container(container) => {
            let wanted = landing.facts.server_version.as_deref().and_then(Version::parse);
            Cluster::start_in(container, wanted.as_ref(), application, landing.state_dir, cx)?
        }
    };
    let place = cluster.describe();
    let server_major = cluster.version().major;
    let is_alike = is_alike(landing, server_major);
    if landing.unit.is_globals() {
        let inner = Box::new(Replay::start(cluster.psql().clone(), cx)?);
        return Ok(Box::new(DrillSink {
            inner,
            place: Place { text: place, warnings: Vec::new(), cluster: Some(cluster), is_alike, cx: cx.clone() },
        }));
    }
    cluster.make_placeholders(&facts)?;
    let warnings: Vec<String> = choose_locale(cluster.psql(), &mut facts, server_major, cx)?.into_iter().collect();
    let is_alike = is_alike && warnings.is_empty();
    let name = drill_name(landing.facts.database.as_deref().unwrap_or("database"))?;
    let mut arrival = source.arrive(cluster.psql().clone(), &name, landing, facts, cx)?;
    arrival.temporary = true;
    into(arrival, Place { text: place, warnings, cluster: Some(cluster), is_alike, cx: cx.clone() })
}

/// Where this machine lacks the dump's locale, one that every machine has: rows and values are the same in it, but
/// not their order.
fn choose_locale(psql: &Psql, facts: &mut RestoreFacts, server_major: u32, cx: &Context) -> Result<Option<String>> {
    let recorded = facts.clone();
    let is_utf8 = recorded.encoding == "UTF8";
    let plain = |facts: &RestoreFacts| ["", "C", "POSIX"].contains(&facts.locale.as_str()) && facts.ctype.is_none();
    if plain(facts) && facts.locale_provider.is_none() {
        return Ok(None);
    }
    let mut failure = None;
    for instead in [None, is_utf8.then_some("C.UTF-8"), Some("C")] {
        match instead {
            None if failure.is_some() => continue,
            None => {}
            Some(locale) => {
                (facts.locale, facts.ctype, facts.locale_provider) = (locale.into(), None, None);
                (facts.provider_locale, facts.icu_rules) = (None, None);
            }
        }
        match try_locale(psql, facts, server_major, cx) {
            Ok(()) => {
                let lost = recorded.provider_locale.as_ref().unwrap_or(&recorded.locale);
                let text = instead.map(|locale| {
                    format!("this machine lacks the locale {lost} of the dump: it is restored with {locale}, and sorts otherwise")
                });
                return Ok(text);
            }
            Err(error) if error.kind() == Kind::Database => failure = failure.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(Kind::Internal, "no locale was tried")))
}

/// Makes a database with this encoding and locale, and drops it.
fn try_locale(psql: &Psql, facts: &RestoreFacts, server_major: u32, cx: &Context) -> Result<()> {
    let options = creation_options(facts, server_major);
    let sql = format!("CREATE DATABASE locale_probe TEMPLATE template0{options};\nDROP DATABASE locale_probe;");
    psql.run(&sql, "making a database with the dump's locale", cx).map(drop).map_err(|error| error.step("place"))
}

/// Whether a server is of the version that was dumped, as far as that is known.
fn is_alike(landing: &Landing<'_>, server_major: u32) -> bool {
    landing.facts.server_version.as_deref().and_then(Version::parse).is_none_or(|dumped| dumped.major == server_major)
}

/// Loads into it.
fn into(arrival: Arrival, place: Place) -> Result<Box<dyn Sink>> {
    for text in &place.warnings {
        place.cx.observer.event(Event::Warning { target: None, text: text.clone() });
    }
    let inner = load::into(arrival, &place.cx)?;
    Ok(Box::new(DrillSink { inner, place }))
}

/// Where a drill takes place.
struct Place {
    text: String,
    /// Those that only staging brings: what the look beforehand says is said then.
    warnings: Vec<String>,
    cluster: Option<Cluster>,
    /// What the dump's own server took, this one takes, too.
    is_alike: bool,
    cx: Context,
}

impl Place {
    /// What a server of another version, or with another locale, does not take says nothing about the backup.
    fn judged(&self, error: Error) -> Error {
        if self.is_alike || error.kind() != Kind::Child {
            return error;
        }
        error.kind_is(Kind::Database).hint_if_none(
            "the server is not like the one that was dumped, so this may not be the backup's fault: drill it on one of the \
             same version and with its locales",
        )
    }
}

/// A sink, and the server that lives as long.
struct DrillSink {
    // Dropped in this order: the session ends before its server.
    inner: Box<dyn Sink>,
    place: Place,
}

impl Write for DrillSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let place = &self.place;
        self.inner.write(bytes).map_err(|error| place.judged(from_io(error, Kind::Child, "the load ended")).into())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Sink for DrillSink {
    fn finish(self: Box<Self>) -> Result<Box<dyn Staged>> {
        let Self { inner, place } = *self;
        let inner = inner.finish().map_err(|error| place.judged(error))?;
        Ok(Box::new(DrillStaged { inner, place }))
    }
}

/// A restored place that is never published.
struct DrillStaged {
    inner: Box<dyn Staged>,
    place: Place,
}

impl Staged for DrillStaged {
    fn compare(&mut self, dumped: &Inventory) -> Result<Comparison> {
        self.inner.compare(dumped)
    }

    fn check(&mut self, sql: &str) -> Result<String> {
        self.inner.check(sql)
    }

    fn place(&self) -> String {
        self.place.text.clone()
    }

    fn warnings(&self) -> Vec<String> {
        self.place.warnings.iter().cloned().chain(self.inner.warnings()).collect()
    }

    fn publish(self: Box<Self>) -> Result<Published> {
        Err(Error::new(Kind::Internal, "what a drill restored is never published"))
    }

    fn discard(self: Box<Self>) -> Result<()> {
        let Self { inner, place } = *self;
        inner.discard()?;
        if let Some(cluster) = place.cluster {
            warn_of(cluster.stop(), &place.cx);
        }
        Ok(())
    }
}
