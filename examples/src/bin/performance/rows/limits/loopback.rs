//! Round trips on loopback: a bare echo, and an actix-web server that answers with what is ready.
//!
//! The client writes a request and reads the answer whose length it knows: no HTTP client could do less.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::dev::ServerHandle;
use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{bench::Bench, load::Times};

use super::{
    BATCH, PRIMARIES, Point,
    servers::{ECHO_BYTES, start_echo, start_http},
};

/// Connections where there are many.
const MANY: usize = 64;

/// The line of one lone exchange over HTTP.
pub(super) const LONE: &str = "bare actix-web, the answer to a batch of 1, connections: 1";

/// Bytes of the body of a request: a GET in a batch takes about that.
const REQUEST_BYTES: usize = 40;

/// Both servers.
pub(super) struct Servers {
    echo: u16,
    http: u16,
    handle: ServerHandle,
}

impl Servers {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let (http, handle) = start_http().await?;
        Ok(Self {
            echo: start_echo().await?,
            http,
            handle,
        })
    }

    pub(super) async fn round(&self, bench: &Bench) -> anyhow::Result<Vec<(String, Point)>> {
        let echo = [0_u8; ECHO_BYTES];
        let mut points = Vec::new();
        for connections in [1, MANY] {
            let times = exchange(bench, self.echo, &echo, ECHO_BYTES, connections).await?;
            let name =
                format!("bare loopback echo of {ECHO_BYTES} bytes, connections: {connections}");
            points.push((name, Point::new(times, 1)));
        }
        points.push((LONE.to_owned(), self.http(bench, 1, 1).await?));
        let name = |ops, connections| {
            format!("bare actix-web, the answer to a batch of {ops}, connections: {connections}")
        };
        points.push((name(1, MANY), self.http(bench, 1, MANY).await?));
        points.push((
            name(BATCH, PRIMARIES),
            self.http(bench, BATCH, PRIMARIES).await?,
        ));
        Ok(points)
    }

    async fn http(&self, bench: &Bench, ops: usize, connections: usize) -> anyhow::Result<Point> {
        let length = ops * REQUEST_BYTES;
        let mut request =
            format!("POST /{ops} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {length}\r\n\r\n");
        request.push_str(&"x".repeat(length));
        let answer_bytes = answer_bytes(self.http, request.as_bytes()).await?;
        let times = exchange(
            bench,
            self.http,
            request.as_bytes(),
            answer_bytes,
            connections,
        );
        Ok(Point::new(times.await?, ops))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Told at once; that it has ended need not be waited for.
        drop(self.handle.stop(false));
    }
}

/// One exchange after the other on each connection.
async fn exchange(
    bench: &Bench,
    port: u16,
    request: &[u8],
    answer_bytes: usize,
    connections: usize,
) -> anyhow::Result<Times> {
    let request: Arc<[u8]> = request.into();
    let from = Instant::now() + bench.warm_up();
    let until = from + bench.lasts;
    let mut running = JoinSet::new();
    for _ in 0..connections {
        running.spawn(one_connection(
            port,
            request.clone(),
            answer_bytes,
            from..until,
        ));
    }
    let mut ops = Vec::new();
    while let Some(done) = running.join_next().await {
        ops.append(&mut done??);
    }
    Ok(Times::new(ops, bench.lasts))
}

async fn one_connection(
    port: u16,
    request: Arc<[u8]>,
    answer_bytes: usize,
    counting: Range<Instant>,
) -> anyhow::Result<Vec<Duration>> {
    let mut stream = connect(port).await?;
    let mut answer = vec![0; answer_bytes];
    let mut times = Vec::new();
    let mut began = Instant::now();
    while began < counting.end {
        stream.write_all(&request).await?;
        stream.read_exact(&mut answer).await?;
        let ended = Instant::now();
        if counting.contains(&ended) {
            times.push(ended - began);
        }
        began = ended;
    }
    Ok(times)
}

async fn connect(port: u16) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Length of the answer with its head, which is the same each time.
async fn answer_bytes(port: u16, request: &[u8]) -> anyhow::Result<usize> {
    let mut stream = connect(port).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    loop {
        stream.read_buf(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let length = lines.find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.context("a length")?.parse()?;
            return Ok(head.len() + 4 + length);
        }
    }
}
