//! `kv cert dev`: certificates for a trial of TLS on one machine, or a few.
//!
//! An authority, a certificate for all nodes, and one for clients. The authority's key is kept nowhere, so nobody can
//! sign anything else in its name; who needs one more certificate makes all of them anew. For real use there are
//! authorities that renew.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand};
use kvclient::rfc3339;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, Error,
    ExtendedKeyUsagePurpose as Purpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::ServerName;

use crate::{
    exit::Exit,
    failure::Failure,
    out::{Format, Out},
};

/// Names of the machine itself.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Make certificates for a trial: ca.pem, node.pem, client.pem and their keys, valid for a year
    ///
    /// One certificate serves all nodes. The authority's key is kept nowhere.
    Dev(DevArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Where to; made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Another name or IP address of a node; may be given several times [always: localhost, 127.0.0.1, ::1]
    #[arg(long = "host", value_name = "NAME", value_parser = host)]
    hosts: Vec<String>,
}

/// Takes what a node could be reached under.
fn host(text: &str) -> Result<String, String> {
    let name = ServerName::try_from(text);
    name.map(|_| text.to_owned())
        .map_err(|_| "not a host name or an IP address".to_owned())
}

/// What is made: name of the file, its text, and who may read it.
struct Made {
    name: &'static str,
    text: String,
    mode: u32,
}

const EVERYBODY: u32 = 0o644;
const OWNER: u32 = 0o600;

pub(crate) fn cert(command: &CertCommand, out: &mut Out) -> Result<Exit, Failure> {
    let CertCommand::Dev(args) = command;
    let until = SystemTime::now() + 365 * DAY;
    let made = make(&args.hosts, until)
        .map_err(|error| Failure::Usage(format!("these names make no certificate: {error}")))?;
    if let Some(there) = made.iter().find(|made| args.dir.join(made.name).exists()) {
        let path = args.dir.join(there.name);
        let path = path.display();
        return Err(Failure::Usage(format!(
            "{path} is there; remove it, or name another directory"
        )));
    }
    write_all(&args.dir, &made).map_err(|error| Failure::file(&args.dir, &error))?;
    show(&args.dir, until, out)?;
    Ok(Exit::Done)
}

fn make(hosts: &[String], until: SystemTime) -> Result<Vec<Made>, Error> {
    let mut ca = params(&[], "kv trial authority", until)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let names: Vec<String> = LOCAL.iter().map(ToString::to_string).collect();
    let mut node = params(&[&names, hosts].concat(), "kv trial node", until)?;
    // A node is a client of other nodes.
    node.extended_key_usages = vec![Purpose::ServerAuth, Purpose::ClientAuth];
    let mut client = params(&[], "kv trial client", until)?;
    client.extended_key_usages = vec![Purpose::ClientAuth];
    let mut made = vec![Made {
        name: "ca.pem",
        text: ca.pem(),
        mode: EVERYBODY,
    }];
    for (params, certificate, key) in [
        (node, "node.pem", "node-key.pem"),
        (client, "client.pem", "client-key.pem"),
    ] {
        let pair = KeyPair::generate()?;
        let signed = params.signed_by(&pair, &ca)?;
        made.push(Made {
            name: certificate,
            text: signed.pem(),
            mode: EVERYBODY,
        });
        made.push(Made {
            name: key,
            text: pair.serialize_pem(),
            mode: OWNER,
        });
    }
    Ok(made)
}

fn params(names: &[String], subject: &str, until: SystemTime) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, subject);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    // Clocks differ.
    let (year, month, day) = date(SystemTime::now() - DAY);
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = date(until);
    params.not_after = date_time_ymd(year, month, day);
    Ok(params)
}

/// Year, month and day.
fn date(moment: SystemTime) -> (i32, u8, u8) {
    let text = rfc3339::format(moment);
    let number = |part: &str| part.parse::<i32>().expect("digits");
    let small = |part| u8::try_from(number(part)).expect("two digits of a date");
    (number(&text[..4]), small(&text[5..7]), small(&text[8..10]))
}

fn write_all(dir: &Path, made: &[Made]) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    for Made { name, text, mode } in made {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(*mode)
            .open(dir.join(name))?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}

fn show(dir: &Path, until: SystemTime, out: &mut Out) -> Result<(), Failure> {
    let until = rfc3339::format(until);
    let until = &until[..10];
    if out.format == Format::Json {
        let dir = dir.display().to_string();
        return out.json(|line| line.field("dir", dir).field("valid_until", until));
    }
    let dir = dir.display();
    out.text(&format!(
        "ca.pem, node.pem, client.pem and their keys are in {dir}, valid until {until}. They are for trials: the\n\
         authority's key is not kept.\n\n\
         Nodes:\n  \
         kvnode --tls-cert {dir}/node.pem --tls-key {dir}/node-key.pem --tls-client-ca {dir}/ca.pem ...\n\n\
         Clients:\n  \
         curl --cacert {dir}/ca.pem --cert {dir}/client.pem --key {dir}/client-key.pem https://localhost:8080/status\n  \
         kv --ca {dir}/ca.pem --cert {dir}/client.pem --key {dir}/client-key.pem status\n"
    ))
}
