//! Running the system's network tools, and what their complaints mean.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a tool may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Why the kernel was not shaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TcError {
    /// The kernel has no `netem`.
    #[error(
        "this kernel has no netem, which delays and drops packets: load it on the host (modprobe sch_netem), use another \
         kernel, or use userspace links (LONGHAUL_LINKS=relay)"
    )]
    NoNetem,
    /// The process may not shape.
    #[error(
        "no permission to shape the network: give the agent's container cap_add: NET_ADMIN, or use userspace links \
         (LONGHAUL_LINKS=relay)"
    )]
    NoPermission,
    /// The kernel cannot kill sockets.
    #[error(
        "this kernel cannot reset connections (CONFIG_INET_DIAG_DESTROY): cut the link instead, use another kernel, or use \
         userspace links (LONGHAUL_LINKS=relay)"
    )]
    NoReset,
    /// A tool is not installed.
    #[error("the program {0} is not installed: install iproute2, or use userspace links (LONGHAUL_LINKS=relay)")]
    NoProgram(String),
    /// An address that is on no interface's way.
    #[error("no interface leads to {address}: {reason}; check the addresses of the locations and the networks")]
    NoDevice {
        /// The address.
        address: String,
        /// What the tool said.
        reason: String,
    },
    /// Anything else.
    #[error("{program} refused `{command}`: {reason}; check the kernel's traffic control modules")]
    Refused {
        /// The tool.
        program: String,
        /// What it was told.
        command: String,
        /// What it said, in one line.
        reason: String,
    },
}

/// A finished tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    /// Whether it succeeded.
    pub success: bool,
    /// Its standard output.
    pub output: String,
    /// What it complained about.
    pub complaint: String,
}

/// Whatever runs tools. A seam, so that the driver is tested without privileges.
pub trait Shell: Send + Sync {
    /// Runs a program to its end, with `input` on its standard input.
    fn run<'a>(&'a self, program: &'a str, arguments: &'a [String], input: &'a str) -> BoxFuture<'a, io::Result<Ran>>;
}

/// The operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemShell;

impl Shell for SystemShell {
    fn run<'a>(&'a self, program: &'a str, arguments: &'a [String], input: &'a str) -> BoxFuture<'a, io::Result<Ran>> {
        Box::pin(async move {
            let mut child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // A tool that ends early closes its input: what it says then is the reason.
                if let Err(error) = stdin.write_all(input.as_bytes()).await
                    && error.kind() != io::ErrorKind::BrokenPipe
                {
                    return Err(error);
                }
            }
            let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, format!("it did not end within {} s", DEADLINE.as_secs()))
            })??;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(Ran { success: output.status.success(), output: text(&output.stdout), complaint: text(&output.stderr) })
        })
    }
}

/// What a tool's complaint means.
pub(super) fn explain(program: &str, command: &str, complaint: &str) -> TcError {
    let has = |text: &str| complaint.contains(text);
    if has("qdisc kind is unknown") || has("Unknown qdisc") {
        return TcError::NoNetem;
    }
    if has("Operation not permitted") || has("EPERM") {
        return TcError::NoPermission;
    }
    TcError::Refused {
        program: program.to_owned(),
        command: command.to_owned(),
        reason: complaint.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

/// The number of the line, from 1, at which a batch failed (`Command failed -:3`).
pub(super) fn failed_line(complaint: &str) -> Option<usize> {
    let (_, after) = complaint.split_once("Command failed -:")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|number| *number > 0)
}

/// Runs a tool; the error says what its failure means.
pub(super) async fn run(shell: &dyn Shell, program: &str, arguments: &[String], input: &str) -> Result<Ran, TcError> {
    match shell.run(program, arguments, input).await {
        Ok(ran) => Ok(ran),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(TcError::NoProgram(program.to_owned())),
        Err(error) => Err(explain(program, &arguments.join(" "), &error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_become_remedies() {
        let said = |complaint: &str| explain("tc", "qdisc add", complaint);
        assert_eq!(said("Error: Specified qdisc kind is unknown.\n"), TcError::NoNetem);
        assert_eq!(said("Unknown qdisc \"netem\", hence option \"delay\" is unparsable\n"), TcError::NoNetem);
        assert_eq!(said("RTNETLINK answers: Operation not permitted\n"), TcError::NoPermission);
        let other = said("Error: Exclusivity flag on,\n cannot modify.\n").to_string();
        assert!(other.contains("`qdisc add`: Error: Exclusivity flag on, cannot modify."), "{other}");
        for error in [TcError::NoNetem, TcError::NoPermission] {
            assert!(error.to_string().contains("LONGHAUL_LINKS=relay"));
        }
    }

    #[test]
    fn the_failed_line_of_a_batch_is_found() {
        assert_eq!(failed_line("Error: Invalid handle.\nCommand failed -:12\n"), Some(12));
        assert_eq!(failed_line("Command failed -:0"), None);
        assert_eq!(failed_line("Error"), None);
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let ran = run(&SystemShell, "no-such-program-here", &[], "").await;
        assert_eq!(ran, Err(TcError::NoProgram("no-such-program-here".to_owned())));
    }

    #[tokio::test]
    async fn input_output_and_complaint_are_kept_apart() {
        let arguments = ["-c".to_owned(), "cat; echo bad >&2; exit 3".to_owned()];
        let ran = run(&SystemShell, "sh", &arguments, "text").await.unwrap();
        assert_eq!(ran, Ran { success: false, output: "text".into(), complaint: "bad\n".into() });
    }
}
