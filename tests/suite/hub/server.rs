//! A small Hugging Face hub on this machine. It serves the endpoints for downloads, with the headers, redirects,
//! ranges and errors of the real hub, and produces faults on demand.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Files of a repository, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A running hub. It stops serving when dropped.
pub struct FakeHub {
    /// The addresses of the hub and of its storage of large files.
    addresses: [SocketAddr; 2],
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    repositories: HashMap<String, Repository>,
    /// Bytes sent of each file, by name. (Requests for one byte, which clients use to learn a file's size, do not
    /// count.)
    served: HashMap<String, u64>,
    fault: Option<(String, Fault)>,
    habits: Habits,
    is_stopped: bool,
}

#[derive(Default)]
struct Repository {
    commits: Vec<(String, Arc<Files>)>,
    /// The token that requests for files must carry, if any.
    token: Option<String>,
}

/// What sets a hub apart from the real one.
#[derive(Clone, Default)]
pub struct Habits {
    /// The `ETag` of every file, in place of its hash.
    pub etag: Option<String>,
    /// The listing gives no hashes and no sizes.
    pub lists_names_alone: bool,
    /// A file comes as a whole, whatever part is asked for.
    pub ignores_ranges: bool,
    /// The status of every answer about a repository, and of every answer to a request for a file.
    pub statuses: [Option<u16>; 2],
}

/// A fault that occurs once, in the next transfer of a file.
#[derive(Clone, Copy)]
pub enum Fault {
    /// The connection closes after this many bytes.
    Cut(usize),
    /// Nothing more arrives after this many bytes.
    Stall(usize),
    /// Every byte is changed.
    Damage,
    /// Zeros come until the client leaves.
    Endless,
}

struct Request {
    method: String,
    path: String,
    query: String,
    /// Headers, with names in lower case.
    headers: HashMap<String, String>,
}

impl FakeHub {
    pub fn start() -> Self {
        // As on the real hub, large files come from another host.
        let listeners = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| TcpListener::bind(address).unwrap());
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let state = Arc::default();
        for listener in listeners {
            let (state, storage) = (Arc::clone(&state), addresses[1]);
            thread::spawn(move || serve(&listener, &state, storage));
        }
        Self { addresses, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addresses[0])
    }

    /// Commits `files` to `repository`, on main; returns the commit.
    pub fn commit(&self, repository: &str, files: Files) -> String {
        let mut state = self.state();
        let commits = &mut state.repositories.entry(repository.to_owned()).or_default().commits;
        let commit = hex(format!("{repository} {}", commits.len()).as_bytes())[..40].to_owned();
        commits.push((commit.clone(), Arc::new(files)));
        commit
    }

    /// Requires `token` for files of `repository` from now on.
    pub fn gate(&self, repository: &str, token: &str) {
        let mut state = self.state();
        state.repositories.get_mut(repository).unwrap().token = Some(token.to_owned());
    }

    pub fn fail(&self, file: &str, fault: Fault) {
        self.state().fault = Some((file.to_owned(), fault));
    }

    pub fn take_up(&self, habits: Habits) {
        self.state().habits = habits;
    }

    /// Bytes sent since the last call, by file.
    pub fn served(&self) -> HashMap<String, u64> {
        std::mem::take(&mut self.state().served)
    }

    /// Makes `command` look for models on this hub and store them in `home`.
    pub fn serve(&self, command: &mut Command, home: &Path) {
        for (name, _) in std::env::vars() {
            let name_in_small = name.to_lowercase();
            if name.starts_with("HF_") || name.starts_with("HUGGING") || name_in_small.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command.env("HF_ENDPOINT", self.url()).env("HF_HOME", home);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.state().is_stopped = true;
        for address in self.addresses {
            // A connection wakes the listener, which then closes.
            while TcpStream::connect(address).is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn serve(listener: &TcpListener, state: &Arc<Mutex<State>>, storage: SocketAddr) {
    for stream in listener.incoming() {
        if state.lock().unwrap().is_stopped {
            break;
        }
        let (state, stream) = (Arc::clone(state), stream.unwrap());
        thread::spawn(move || {
            // A client that disconnects early is not an error.
            let _ = answer(stream, &state, storage);
        });
    }
}

/// Reads one request and answers it.
fn answer(mut stream: TcpStream, state: &Mutex<State>, storage: SocketAddr) -> std::io::Result<()> {
    let Some(request) = Request::read(&stream)? else { return Ok(()) };
    let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["api", "models", owner, name] => describe(&mut stream, state, &request, &[owner, name], "main"),
        ["api", "models", owner, name, "revision", revision] => {
            describe(&mut stream, state, &request, &[owner, name], revision)
        }
        ["api", "models", owner, name, "tree", revision] => {
            list(&mut stream, state, &request, &[owner, name], revision)
        }
        ["api", "resolve-cache", "models", owner, name, commit, file]
        | [owner, name, "resolve", commit, file] => {
            resolve(&mut stream, state, &request, &[owner, name], commit, file, storage)
        }
        ["blobs", owner, name, commit, file] => {
            let found = find(state, &request, &[owner, name], commit);
            let Ok((_, files)) = found else { return refuse(&mut stream, 404, "EntryNotFound") };
            send_file(&mut stream, state, &request, file, &files[file], "")
        }
        _ => refuse(&mut stream, 404, "NotFound"),
    }
}

impl Request {
    fn read(stream: &TcpStream) -> std::io::Result<Option<Self>> {
        let mut lines = BufReader::new(stream).lines();
        let Some(first) = lines.next().transpose()? else { return Ok(None) };
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or("").replace("%2F", "/"));
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut headers = HashMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        Ok(Some(Self { method: method.to_owned(), path: path.to_owned(), query: query.to_owned(), headers }))
    }

    fn token(&self) -> Option<&str> {
        self.headers.get("authorization")?.strip_prefix("Bearer ")
    }

    fn is_to(&self, repository: &Repository) -> bool {
        repository.token.is_none() || repository.token.as_deref() == self.token()
    }
}

/// The repository's commit and files at `revision`, or the status and code of the error.
fn find(
    state: &Mutex<State>,
    request: &Request,
    repository: &[&str],
    revision: &str,
) -> Result<(String, Arc<Files>), (u16, &'static str)> {
    let state = state.lock().unwrap();
    let no_repository = if request.token().is_none() { 401 } else { 404 };
    let repository = state.repositories.get(&repository.join("/")).ok_or((no_repository, "RepoNotFound"))?;
    let mut commits = repository.commits.iter().rev();
    let commit = commits.find(|(commit, _)| revision == "main" || revision == commit);
    commit.cloned().ok_or((404, "RevisionNotFound"))
}

fn describe(
    stream: &mut TcpStream,
    state: &Mutex<State>,
    request: &Request,
    repository: &[&str],
    revision: &str,
) -> std::io::Result<()> {
    if let Some(status) = state.lock().unwrap().habits.statuses[0] {
        return refuse(stream, status, "Odd");
    }
    let (commit, files) = match find(state, request, repository, revision) {
        Ok(found) => found,
        Err((status, code)) => return refuse(stream, status, code),
    };
    let id = repository.join("/");
    let gated =
        state.lock().unwrap().repositories[&id].token.as_ref().map_or(json!(false), |_| json!("manual"));
    let habits = state.lock().unwrap().habits.clone();
    let with_blobs = request.query.contains("blobs=true") && !habits.lists_names_alone;
    let siblings: Vec<Value> = files.iter().map(|(name, bytes)| sibling(name, bytes, with_blobs)).collect();
    let body = json!({"id": id, "modelId": id, "sha": commit, "private": false, "gated": gated, "disabled": false,
        "downloads": 0, "likes": 0, "tags": [], "lastModified": "2026-01-01T00:00:00.000Z", "siblings": siblings});
    send(stream, "200 OK", "Content-Type: application/json\r\n", body.to_string().as_bytes())
}

fn sibling(name: &str, bytes: &[u8], with_blobs: bool) -> Value {
    if !with_blobs {
        return json!({"rfilename": name});
    }
    let mut file = json!({"rfilename": name, "size": bytes.len(), "blobId": blob_id(bytes)});
    if is_large(name) {
        file["lfs"] = json!({"sha256": hex(bytes), "size": bytes.len(), "pointerSize": 130});
    }
    file
}

fn list(
    stream: &mut TcpStream,
    state: &Mutex<State>,
    request: &Request,
    repository: &[&str],
    revision: &str,
) -> std::io::Result<()> {
    let (_, files) = match find(state, request, repository, revision) {
        Ok(found) => found,
        Err((status, code)) => return refuse(stream, status, code),
    };
    let entry = |(name, bytes): (&String, &Vec<u8>)| {
        let mut file = json!({"type": "file", "path": name, "size": bytes.len(), "oid": blob_id(bytes)});
        if is_large(name) {
            file["lfs"] = json!({"oid": hex(bytes), "size": bytes.len(), "pointerSize": 130});
        }
        file
    };
    let body: Value = files.iter().map(entry).collect();
    send(stream, "200 OK", "Content-Type: application/json\r\n", body.to_string().as_bytes())
}

fn resolve(
    stream: &mut TcpStream,
    state: &Mutex<State>,
    request: &Request,
    repository: &[&str],
    revision: &str,
    file: &str,
    storage: SocketAddr,
) -> std::io::Result<()> {
    let (commit, files) = match find(state, request, repository, revision) {
        Ok(found) => found,
        Err((status, code)) => return refuse(stream, status, code),
    };
    let id = repository.join("/");
    if let Some(status) = state.lock().unwrap().habits.statuses[1] {
        return refuse(stream, status, "Odd");
    }
    if !request.is_to(&state.lock().unwrap().repositories[&id]) {
        return refuse(stream, if request.token().is_none() { 401 } else { 403 }, "GatedRepo");
    }
    let headers = format!("X-Repo-Commit: {commit}\r\n");
    let Some(bytes) = files.get(file) else { return refuse_with(stream, 404, "EntryNotFound", &headers) };
    let etag = state.lock().unwrap().habits.etag.clone();
    if is_large(file) {
        // Files stored in LFS come from another host, which does not know commits.
        let (sha256, size) = (hex(bytes), bytes.len());
        let etag = etag.unwrap_or(sha256);
        let headers = format!(
            "{headers}X-Linked-ETag: \"{etag}\"\r\nX-Linked-Size: {size}\r\nETag: \"{}\"\r\n\
             Location: http://{storage}/blobs/{id}/{commit}/{file}\r\n",
            blob_id(bytes)
        );
        return send(stream, "302 Found", &headers, b"");
    }
    let headers = format!("{headers}ETag: \"{}\"\r\n", etag.unwrap_or_else(|| blob_id(bytes)));
    if request.path.contains("/resolve-cache/") {
        return send_file(stream, state, request, file, bytes, &headers);
    }
    let headers = format!("{headers}Location: /api/resolve-cache/models/{id}/{commit}/{file}\r\n");
    send(stream, "307 Temporary Redirect", &headers, b"")
}

fn send_file(
    stream: &mut TcpStream,
    state: &Mutex<State>,
    request: &Request,
    file: &str,
    bytes: &[u8],
    headers: &str,
) -> std::io::Result<()> {
    let ignores_ranges = state.lock().unwrap().habits.ignores_ranges;
    let range = request.headers.get("range").filter(|_| !ignores_ranges);
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (status, start, end) = match range {
        Some((start, end)) => {
            let end = end.parse().map_or(bytes.len(), |last: usize| (last + 1).min(bytes.len()));
            ("206 Partial Content", start.parse().unwrap(), end)
        }
        None => ("200 OK", 0, bytes.len()),
    };
    if range.is_some() && start >= end {
        return refuse(stream, 416, "RangeNotSatisfiable");
    }
    let mut body = bytes[start..end].to_vec();
    let range = match range {
        Some(_) => format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len()),
        None => String::new(),
    };
    let (mut sent, mut stalls) = (body.len(), false);
    if request.method == "GET" && body.len() > 1 {
        let mut state = state.lock().unwrap();
        if let Some((_, fault)) = state.fault.take_if(|(at, _)| at == file) {
            match fault {
                Fault::Cut(at) => sent = at - start,
                Fault::Endless => return send_without_end(stream),
                Fault::Stall(at) => (sent, stalls) = (at - start, true),
                Fault::Damage => body.iter_mut().for_each(|byte| *byte = !*byte),
            }
        }
        *state.served.entry(file.to_owned()).or_default() += sent as u64;
    }
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\nConnection: close\r\n{headers}{range}\r\n",
        body.len()
    )?;
    if request.method == "GET" {
        stream.write_all(&body[..sent])?;
    }
    if stalls {
        thread::sleep(Duration::from_mins(1));
    }
    Ok(())
}

fn send_without_end(stream: &mut TcpStream) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
    loop {
        stream.write_all(&[0; 1 << 13])?;
    }
}

fn refuse(stream: &mut TcpStream, status: u16, code: &str) -> std::io::Result<()> {
    refuse_with(stream, status, code, "")
}

fn refuse_with(stream: &mut TcpStream, status: u16, code: &str, headers: &str) -> std::io::Result<()> {
    let headers = format!("X-Error-Code: {code}\r\nX-Error-Message: {code}\r\n{headers}");
    send(stream, &format!("{status} Refused"), &headers, json!({"error": code}).to_string().as_bytes())
}

fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n")?;
    stream.write_all(body)
}

/// Whether the hub stores the file in LFS.
fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors") || file == "tokenizer.json"
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Stands in for git's id of a file and has the same length.
fn blob_id(bytes: &[u8]) -> String {
    hex(&[b"blob", bytes].concat())[..40].to_owned()
}
