//! The two bare servers of `loopback.rs`. Both have threads of their own, as a node has.

use std::thread;

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, web};
use bytes::Bytes;
use kvclient::{
    position::Position,
    wire::batch::{OpResult, encode_results},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use crate::load::{VALUE_BYTES, value};

use super::BATCH;

/// Bytes of an echo, about what a GET of 100 bytes takes.
pub(super) const ECHO_BYTES: usize = 150;

/// Sends back whatever comes, on the port that is returned, as long as this program runs.
pub(super) async fn start_echo() -> anyhow::Result<u16> {
    let (told, port) = oneshot::channel();
    thread::Builder::new()
        .name("echo".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()?;
            runtime.block_on(async {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
                // Nobody waits any more: then there is nobody to echo to either.
                let _ = told.send(listener.local_addr()?.port());
                serve_echo(listener).await
            })
        })?;
    Ok(port.await?)
}

async fn serve_echo(listener: TcpListener) -> std::io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        connections.spawn(echo(stream));
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; ECHO_BYTES];
    loop {
        stream.read_exact(&mut buffer).await?;
        stream.write_all(&buffer).await?;
    }
}

/// Answers `POST /OPS` with what a node answers to a batch of that many GETs.
pub(super) async fn start_http() -> anyhow::Result<(u16, ServerHandle)> {
    let (told, started) = oneshot::channel();
    thread::Builder::new()
        .name("http".to_owned())
        .spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let answers = [1, BATCH].map(|ops| (format!("/{ops}"), answer(ops)));
                let app = move || {
                    let with = |app: App<_>, (path, answer): &(String, Bytes)| {
                        let answer = answer.clone();
                        let ready = move |_body: Bytes| {
                            std::future::ready(HttpResponse::Ok().body(answer.clone()))
                        };
                        app.route(path, web::post().to(ready))
                    };
                    answers.iter().fold(App::new(), with)
                };
                let server = HttpServer::new(app)
                    .disable_signals()
                    .bind(("127.0.0.1", 0))?;
                let port = server.addrs()[0].port();
                let server = server.run();
                let _ = told.send((port, server.handle()));
                server.await
            })
        })?;
    Ok(started.await?)
}

/// What a node answers to that many GETs.
fn answer(ops: usize) -> Bytes {
    let results = (0..ops).map(|number| OpResult {
        status: 200,
        position: Some(Position::new(1, number as u64)),
        etag: Some(Position::new(1, number as u64)),
        value: Some(value(number, VALUE_BYTES)),
        ..OpResult::default()
    });
    let results: Vec<OpResult> = results.collect();
    encode_results(results.iter()).into()
}
