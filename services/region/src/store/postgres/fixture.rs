//! A PostgreSQL server of a test's own: in a temporary folder, on a Unix socket, stopped with the test.
//!
//! Integration tests of this and other crates include this file by its path.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Where Debian keeps the programs that are not in the path.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A running server.
pub struct PostgresServer {
    folder: TempDir,
    programs: PathBuf,
    /// The user that the server runs as: it refuses to run as root.
    user: Option<(u32, u32)>,
    options: Vec<String>,
}

impl PostgresServer {
    /// Starts a server with these settings (`name=value`), or says why this machine cannot.
    pub fn start(settings: &[&str]) -> Result<Self, String> {
        Self::start_in(std::env::temp_dir().as_path(), settings)
    }

    /// Starts a server whose folder lies in `parent`.
    pub fn start_in(parent: &Path, settings: &[&str]) -> Result<Self, String> {
        let programs = programs()?;
        let folder = tempfile::Builder::new()
            .prefix("longhaul-pg-")
            .tempdir_in(parent)
            .map_err(|error| format!("no temporary folder: {error}"))?;
        let user = server_user(folder.path())?;
        let options = settings.iter().map(ToString::to_string).collect();
        let server = Self { folder, programs, user, options };
        let data = server.data();
        let arguments = ["-N", "-A", "trust", "-U", "longhaul", "-E", "UTF8", "--locale=C", "-D"];
        server.succeed("initdb", &[&arguments[..], &[text(&data)]].concat())?;
        server.up()?;
        Ok(server)
    }

    /// The server, or `None` after one line that says why there is none: the test is skipped.
    pub fn or_skip(settings: &[&str]) -> Option<Self> {
        match Self::start(settings) {
            Ok(server) => Some(server),
            Err(reason) => {
                eprintln!("skipped: {reason}");
                None
            }
        }
    }

    /// The address of the server's own database.
    pub fn url(&self) -> String {
        // The socket's folder as the host, percent-encoded as far as a path needs it.
        let host = text(self.folder.path()).replace('/', "%2F");
        format!("postgres://longhaul@{host}/postgres")
    }

    /// Starts it (again) and waits until it takes connections.
    pub fn up(&self) -> Result<(), String> {
        let mut options = format!("-k {} -c listen_addresses=", text(self.folder.path()));
        for option in &self.options {
            options.push_str(" -c ");
            options.push_str(option);
        }
        let (data, log) = (self.data(), self.folder.path().join("log"));
        self.succeed("pg_ctl", &["-D", text(&data), "-l", text(&log), "-w", "-t", "60", "-o", &options, "start"])
    }

    /// Kills every process of the server at once, as a crash does, and waits for their end.
    pub fn crash(&self) -> Result<(), String> {
        self.succeed("pg_ctl", &["-D", text(&self.data()), "-m", "immediate", "-w", "-t", "60", "stop"])
    }

    /// Runs SQL as the server's owner.
    pub fn sql(&self, statement: &str) -> Result<String, String> {
        let folder = text(self.folder.path());
        let arguments = ["-h", folder, "-U", "longhaul", "-d", "postgres", "-X", "-q", "-t", "-A", "-v"];
        let output = self.run("psql", &[&arguments[..], &["ON_ERROR_STOP=1", "-c", statement]].concat())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// The process of the postmaster.
    pub fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?.lines().next()?.parse().ok()
    }

    /// The server's data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<Output, String> {
        let path = self.programs.join(program);
        let mut command = Command::new(&path);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        // The server inherits standard output from pg_ctl and would hold a pipe open.
        let piped = if program == "pg_ctl" { Stdio::null } else { Stdio::piped };
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).stdout(piped()).stderr(piped());
        command.output().map_err(|error| format!("{} cannot be run: {error}", path.display()))
    }

    fn succeed(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let output = self.run(program, arguments)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        Err(format!("{program} failed ({}): {said} {last}", output.status))
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let _ = self.run("pg_ctl", &["-D", text(&self.data()), "-m", "immediate", "-w", "stop"]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// The newest version's folder of programs.
fn programs() -> Result<PathBuf, String> {
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|version| Some((version.file_name().to_str()?.parse::<u32>().ok()?, version.path().join("bin"))))
        .filter(|(_, programs)| programs.join("initdb").exists())
        .max();
    if let Some((_, programs)) = newest {
        return Ok(programs);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|folder| folder.join("initdb").exists() && folder.join("pg_ctl").exists())
        .ok_or_else(|| "PostgreSQL is not installed (Debian: apt-get install postgresql-15)".to_owned())
}

/// As root the server runs as the user `postgres`, to whom the folder is given.
fn server_user(folder: &Path) -> Result<Option<(u32, u32)>, String> {
    let owner = std::fs::metadata(folder).map_err(|error| error.to_string())?.uid();
    if owner != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").map_err(|error| format!("/etc/passwd: {error}"))?;
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let mut fields = line.ok_or("there is no user postgres to run the server as")?.split(':').skip(2);
    let mut number = || fields.next().and_then(|field| field.parse().ok()).ok_or("/etc/passwd cannot be read");
    let (user, group) = (number()?, number()?);
    chown(folder, Some(user), Some(group)).map_err(|error| format!("the folder cannot be given away: {error}"))?;
    Ok(Some((user, group)))
}
