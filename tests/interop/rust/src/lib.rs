//! The sample of tests/plugin_sample in Rust: SETs each payload in a Redis, through bindings that bindgen made of
//! outbox_backend.h. That the header can be used from there is what it is for.
#![allow(non_camel_case_types, non_upper_case_globals, dead_code)]

include!(concat!(env!("OUT_DIR"), "/outbox_backend.rs"));

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::ptr::null;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;
use std::time::Duration;

const SLICE_MS: u64 = 250;

struct Destination {
    address: String,
}

/// The worker's, but for `wake` and `interrupted`, which interrupt() touches from another thread.
struct Session {
    destination: *const Destination,
    stream: RefCell<Option<TcpStream>>,
    wake: Mutex<Option<TcpStream>>,
    interrupted: AtomicBool,
}

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

extern "C" {
    fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int;
}

const CLOCK_MONOTONIC: c_int = 1;

/// What is left of a deadline; None = nothing.
fn left(deadline_ms: i64) -> Option<Duration> {
    let mut now = Timespec { seconds: 0, nanoseconds: 0 };
    unsafe { clock_gettime(CLOCK_MONOTONIC, &mut now) };
    let left_ms = deadline_ms - (now.seconds * 1000 + now.nanoseconds / 1_000_000);
    u64::try_from(left_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis)
}

unsafe fn fail(error: *mut outbox_error, kind: outbox_error_kind, why: &str) -> c_int {
    let error = &mut *error;
    let text = format!("rustsample: {why}");
    let len = text.len().min(error.text.len() - 1);
    for (to, from) in error.text.iter_mut().zip(&text.as_bytes()[..len]) {
        *to = *from as c_char;
    }
    error.text[len] = 0;
    error.kind = kind;
    -1
}

unsafe fn slice<'a>(bytes: outbox_bytes) -> &'a [u8] {
    if bytes.len == 0 {
        return &[];
    }
    std::slice::from_raw_parts(bytes.ptr.cast(), bytes.len as usize)
}

unsafe extern "C" fn open(
    backend: *mut *mut c_void,
    host: *const outbox_host,
    settings: *const outbox_settings,
    error: *mut outbox_error,
) -> c_int {
    let get = (*host).get_string.expect("get_string");
    match CStr::from_ptr(get(settings, c"address".as_ptr())).to_str() {
        Ok(address) => {
            *backend = Box::into_raw(Box::new(Destination { address: address.into() })).cast();
            0
        }
        Err(_) => fail(error, outbox_error_kind_OUTBOX_ERROR_CONFIG, "option 'address' is no UTF-8"),
    }
}

unsafe extern "C" fn close(backend: *mut c_void) {
    drop(Box::from_raw(backend.cast::<Destination>()));
}

unsafe extern "C" fn session_new(backend: *mut c_void, out: *mut *mut c_void, _error: *mut outbox_error) -> c_int {
    *out = Box::into_raw(Box::new(Session {
        destination: backend.cast(),
        stream: RefCell::new(None),
        wake: Mutex::new(None),
        interrupted: AtomicBool::new(false),
    }))
    .cast();
    0
}

unsafe extern "C" fn session_free(session: *mut c_void) {
    drop(Box::from_raw(session.cast::<Session>()));
}

/// In slices, since nothing wakes a connect() of the standard library.
fn dial(session: &Session, address: &str, deadline_ms: i64) -> std::io::Result<TcpStream> {
    let to = address.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
    while let Some(left) = left(deadline_ms) {
        if session.interrupted.load(Ordering::SeqCst) {
            break;
        }
        match TcpStream::connect_timeout(&to, left.min(Duration::from_millis(SLICE_MS))) {
            Err(error) if error.kind() == ErrorKind::TimedOut => continue,
            done => return done,
        }
    }
    Err(ErrorKind::TimedOut.into())
}

unsafe extern "C" fn connect(session: *mut c_void, deadline_ms: i64, error: *mut outbox_error) -> c_int {
    let session = &*session.cast::<Session>();
    session.interrupted.store(false, Ordering::SeqCst);
    let dialled = dial(session, &(*session.destination).address, deadline_ms)
        .and_then(|stream| stream.set_nodelay(true).and(stream.try_clone()).map(|wake| (stream, wake)));
    match dialled {
        Ok((stream, wake)) => {
            *session.wake.lock().expect("lock") = Some(wake);
            *session.stream.borrow_mut() = Some(stream);
            0
        }
        Err(why) => fail(error, outbox_error_kind_OUTBOX_ERROR_UNAVAILABLE, &why.to_string()),
    }
}

unsafe extern "C" fn disconnect(session: *mut c_void) {
    let session = &*session.cast::<Session>();
    *session.wake.lock().expect("lock") = None;
    *session.stream.borrow_mut() = None;
}

fn send_all(stream: &mut TcpStream, mut bytes: &[u8], deadline_ms: i64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline_ms).ok_or(ErrorKind::TimedOut)?))?;
        let sent = stream.write(bytes)?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// "+OK\r\n", and nothing else is an answer.
fn is_answered(stream: &mut TcpStream, deadline_ms: i64) -> std::io::Result<()> {
    let mut answer = [0u8; 5];
    let mut len = 0;
    while len < answer.len() {
        stream.set_read_timeout(Some(left(deadline_ms).ok_or(ErrorKind::TimedOut)?))?;
        match stream.read(&mut answer[len..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            got => len += got,
        }
    }
    if &answer == b"+OK\r\n" { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

fn send(stream: &mut TcpStream, payload: &[u8], deadline_ms: i64) -> std::io::Result<()> {
    let mut command = format!("*3\r\n$3\r\nSET\r\n$4\r\nrust\r\n${}\r\n", payload.len()).into_bytes();
    command.extend_from_slice(payload);
    command.extend_from_slice(b"\r\n");
    send_all(stream, &command, deadline_ms)?;
    is_answered(stream, deadline_ms)
}

unsafe extern "C" fn publish(
    session: *mut c_void,
    batch: *mut outbox_batch,
    deadline_ms: i64,
    error: *mut outbox_error,
) -> outbox_session_state {
    let session = &*session.cast::<Session>();
    let mut stream = session.stream.borrow_mut();
    let stream = stream.as_mut().expect("connected");
    let settle = (*batch).settle.expect("settle");
    for at in 0..(*batch).count {
        let message = *(*batch).messages.add(at as usize);
        if let Err(why) = send(stream, slice((*message).payload), deadline_ms) {
            fail(error, outbox_error_kind_OUTBOX_ERROR_UNAVAILABLE, &why.to_string());
            return outbox_session_state_OUTBOX_SESSION_LOST;
        }
        settle(batch, at, outbox_verdict_OUTBOX_CONFIRMED, null(), 0);
    }
    outbox_session_state_OUTBOX_SESSION_OK
}

unsafe extern "C" fn interrupt(session: *mut c_void) {
    let session = &*session.cast::<Session>();
    session.interrupted.store(true, Ordering::SeqCst);
    if let Some(wake) = session.wake.lock().expect("lock").as_ref() {
        let _ = wake.shutdown(Shutdown::Both); // it may have ended by itself
    }
}

/// Tables hold pointers, which Rust takes for something that threads must not share; these are constant.
#[repr(transparent)]
struct Constant<T>(T);
unsafe impl<T> Sync for Constant<T> {}

static OPTIONS: Constant<[outbox_option; 2]> = Constant([
    outbox_option {
        name: c"address".as_ptr(),
        type_: outbox_option_type_OUTBOX_OPT_STRING,
        flags: OUTBOX_OPT_REQUIRED,
        fallback: null(),
        choices: null(),
        min: 0,
        max: 0,
        help: c"HOST:PORT of a Redis".as_ptr(),
    },
    outbox_option { name: null(), type_: 0, flags: 0, fallback: null(), choices: null(), min: 0, max: 0, help: null() },
]);

static TABLE: Constant<outbox_backend> = Constant(outbox_backend {
    size: size_of::<outbox_backend>() as u32,
    name: c"rustsample".as_ptr(),
    version: c"0.1.0".as_ptr(),
    options: OPTIONS.0.as_ptr(),
    open: Some(open),
    close: Some(close),
    session_new: Some(session_new),
    session_free: Some(session_free),
    connect: Some(connect),
    disconnect: Some(disconnect),
    publish: Some(publish),
    check: None,
    interrupt: Some(interrupt),
    explain: None,
    library: None,
    option_size: size_of::<outbox_option>() as _,
});

const fn text<const N: usize>(from: &[u8]) -> [c_char; N] {
    let mut to = [0; N];
    let mut at = 0;
    while at < from.len() {
        to[at] = from[at] as c_char;
        at += 1;
    }
    to
}

/// What the macro OUTBOX_BACKEND() makes in C: the note that is read before anything runs, and the entry.
#[used]
#[link_section = ".note.outbox"]
static NOTE: outbox_note = outbox_note {
    namesz: 7,
    descsz: size_of::<outbox_note>() as u32 - 20,
    type_: 1,
    owner: text(b"Outbox"),
    abi_major: OUTBOX_BACKEND_ABI_MAJOR,
    abi_minor: OUTBOX_BACKEND_ABI_MINOR,
    pointer_bytes: size_of::<*const c_void>() as u32,
    name: text(b"rustsample"),
    version: text(b"0.1.0"),
};

#[no_mangle]
pub extern "C" fn outbox_backend_v1() -> *const outbox_backend {
    &TABLE.0
}
