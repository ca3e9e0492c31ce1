//! A command line for the image service: it uploads files, several at once, follows them with progress
//! bars, takes up tomorrow what it left today, and reads offline what it may keep.

mod follow;
mod get;
mod kept;
mod show;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use http::{HeaderMap, HeaderValue};
use respond_async::client::{Client, ReqwestTransport, TransportError};
use url::Url;

use crate::kept::Folder;
use crate::show::Show;

/// Uploads pictures to the image service, and follows what becomes of them.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0  all went well
  1  the service refused a picture, or could not make it
  2  the command was not understood, or a file could not be read
  3  the service could not be reached, or did not answer as it should
  4  it was interrupted, or did not wait: see `images-cli resume` for what is still at work";

#[derive(Debug, clap::Args)]
struct Settings {
    /// Where the service is
    #[arg(long, env = "IMAGES_SERVER", default_value = "http://127.0.0.1:3000", global = true)]
    server: Url,
    /// Who you are, as the service should know you
    #[arg(long, env = "IMAGES_USER", global = true)]
    user: Option<String>,
    /// Tell what happens as lines of JSON
    #[arg(long, global = true)]
    json: bool,
    /// Where operations and answers are kept (default: images-cli below the user's folder for state)
    #[arg(long, env = "IMAGES_FOLDER", global = true)]
    folder: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Upload pictures, several at once, and wait until they are done
    Upload {
        /// JPEG or PNG files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Save what the service made of them in this folder
        #[arg(long)]
        output: Option<PathBuf>,
        /// How many at once
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
        at_once: u8,
        /// How many seconds the service may take to answer at once
        #[arg(long, default_value_t = 1)]
        wait: u32,
        /// What Ctrl-C does; a second one ends the program
        #[arg(long, value_enum, default_value_t = OnInterrupt::Detach)]
        on_interrupt: OnInterrupt,
        /// Do not wait for what was accepted
        #[arg(long)]
        detach: bool,
    },
    /// Take up what was left, and wait until it is done
    Resume {
        /// Save what the service made in this folder
        #[arg(long)]
        output: Option<PathBuf>,
        /// How many at once
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
        at_once: u8,
        /// What Ctrl-C does; a second one ends the program
        #[arg(long, value_enum, default_value_t = OnInterrupt::Detach)]
        on_interrupt: OnInterrupt,
    },
    /// List what was left
    List,
    /// Get a picture, or what is known about it
    Get {
        /// Its address, absolute or on the service
        picture: String,
        /// Save it here (default: print it)
        #[arg(long)]
        output: Option<PathBuf>,
        /// Get what is known about it, as JSON
        #[arg(long)]
        about: bool,
        /// Ask nobody: give what is kept
        #[arg(long)]
        offline: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnInterrupt {
    /// Let the service go on, and end
    Detach,
    /// Ask the service to stop, and wait for that
    Cancel,
}

/// How the program ends; the worst of several counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Well = 0,
    AtWork = 4,
    Failed = 1,
    Trouble = 3,
    NotUnderstood = 2,
}

impl End {
    /// The graver of two.
    fn and(self, other: Self) -> Self {
        const GRAVITY: [End; 5] =
            [End::Well, End::AtWork, End::Failed, End::Trouble, End::NotUnderstood];
        let rank = |end| GRAVITY.iter().position(|one| *one == end);
        if rank(other) > rank(self) { other } else { self }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { settings, command } = Arguments::parse();
    let show = Show::new(settings.json);
    let end = match run(&settings, command, &show).await {
        Ok(end) => end,
        Err((end, message)) => {
            show.error(&message);
            end
        }
    };
    ExitCode::from(end as u8)
}

type Failure = (End, String);

async fn run(settings: &Settings, command: Command, show: &Show) -> Result<End, Failure> {
    let not_understood = |message: String| (End::NotUnderstood, message);
    let folder = Folder::open(&folder(settings).map_err(not_understood)?)
        .map_err(|error| not_understood(format!("cannot keep anything: {error}")))?;
    let mut headers = HeaderMap::new();
    if let Some(user) = &settings.user {
        let name = HeaderValue::from_str(user)
            .map_err(|_| not_understood(format!("{user:?} is no name for a user")))?;
        headers.insert("x-user", name);
    }
    let set_up = |error: TransportError| (End::Trouble, error.to_string());
    // The image service knows a request by its key: it can be sent again.
    let client = || {
        let transport = ReqwestTransport::new().map_err(set_up)?;
        Ok::<_, Failure>(Client::with(transport).trust_idempotency_keys(true))
    };
    match command {
        Command::Upload { files, output, at_once, wait, on_interrupt, detach } => {
            let upload = follow::Upload {
                client: client()?,
                server: settings.server.clone(),
                headers,
                folder,
                show: show.clone(),
                output,
                wait: Duration::from_secs(wait.into()),
                on_interrupt,
                detach,
            };
            Ok(upload.files(files, at_once.into()).await)
        }
        Command::Resume { output, at_once, on_interrupt } => {
            let upload = follow::Upload {
                client: client()?,
                server: settings.server.clone(),
                headers,
                folder,
                show: show.clone(),
                output,
                wait: Duration::ZERO,
                on_interrupt,
                detach: false,
            };
            upload.resume(at_once.into()).await
        }
        Command::List => {
            for one in folder.all().map_err(|error| (End::Trouble, error.to_string()))? {
                show.kept(&one);
            }
            Ok(End::Well)
        }
        Command::Get { picture, output, about, offline } => {
            let url = settings.server.join(&picture);
            let url = url.map_err(|error| not_understood(format!("{picture:?}: {error}")))?;
            let headers = get::headers_for(&url, &settings.server, &headers);
            let to = output.map_or(get::To::Print, get::To::File);
            let wanted = get::Wanted { url, headers, to, about, offline };
            get::get(wanted, &folder, show).await.map(|_| End::Well)
        }
    }
}

fn folder(settings: &Settings) -> Result<PathBuf, String> {
    if let Some(folder) = &settings.folder {
        return Ok(folder.clone());
    }
    let var = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let state = var("XDG_STATE_HOME").map(PathBuf::from);
    let home = || var("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = state.or_else(home).ok_or("there is no HOME: say --folder")?;
    Ok(state.join("images-cli"))
}
