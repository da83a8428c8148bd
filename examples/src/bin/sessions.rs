//! A session is what one user has seen. It can be split off, sent as a text token, resumed elsewhere, and merged.
//!
//! Ada orders something at one front end of a shop and looks at her orders at another one, which is another process
//! with a client of its own. Her browser carries the token between them, so the second front end shows her order
//! whichever node answers. Bob, who comes without a token, gets whatever the node has that answers him: he waits for
//! nobody.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Parser, value_parser};
use examples::Cluster;
use kvclient::{Client, Position, Session};

const ORDERS: &str = "sessions:{ada}:orders";
const CART: &str = "sessions:{ada}:cart";

/// Passes what a user has seen from one client to another.
///
/// Each round an order is written at one client and read at a second one, with and without the user's token.
#[derive(Parser)]
#[command(
    after_help = "To run it: ./launch.sh, then cargo run --release -p examples --bin sessions"
)]
struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// Orders to place
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::finish(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    // Two processes of a shop.
    let here = args.cluster.connect().await?;
    let there = args.cluster.connect().await?;
    let (mut seen_with, mut seen_without) = (0, 0);
    let mut token = String::new();
    for round in 1..=args.rounds {
        token = order(&here, &token, round).await?;
        seen_with += u32::from(orders(&there, Session::from_token(&token)?).await? == Some(round));
        seen_without += u32::from(orders(&there, Session::new()).await? == Some(round));
    }
    println!(
        "with Ada's token the other client saw    {seen_with} of {} orders at once",
        args.rounds
    );
    println!("without it                               {seen_without}");
    println!("her token                                {token}");
    ensure!(seen_with == args.rounds, "a session was not honoured");
    split_and_merge(&here, &token).await?;
    curl_line(&here, &Session::from_token(&token)?)
}

/// One request at a front end: resumes the user's session, works, and gives back its token for the next request.
async fn order(kv: &Client, token: &str, number: u32) -> anyhow::Result<String> {
    // A first visit has no token; one that is spoilt counts as none.
    let ada = kv.with_session(Session::from_token(token).unwrap_or_default());
    ada.put(ORDERS, number.to_string()).await?;
    Ok(ada.session().to_token())
}

/// What a request with this session reads.
async fn orders(kv: &Client, session: Session) -> anyhow::Result<Option<u32>> {
    let value = kv.with_session(session).get(ORDERS).await?;
    let Some(value) = value else {
        return Ok(None);
    };
    Ok(Some(std::str::from_utf8(&value)?.parse()?))
}

/// A background job gets a session split off, and its result is merged back.
async fn split_and_merge(kv: &Client, token: &str) -> anyhow::Result<()> {
    let ada = kv.with_session(Session::from_token(token)?);
    let job = ada.fork();
    let job = tokio::spawn(async move {
        job.put(CART, "empty").await?;
        Ok::<_, kvclient::Error>(job.session())
    });
    // Until here, nothing makes Ada's reads wait for what the job writes.
    ada.merge_session(&job.await??);
    let cart = ada.get(CART).await?;
    ensure!(
        cart.as_deref() == Some(b"empty"),
        "the job's write is not seen"
    );
    println!("after the merge she sees what her job did");
    ada.delete(CART).await?;
    ada.delete(ORDERS).await?;
    Ok(())
}

/// The same for a person with curl: a node that does not hold the position answers 503 instead of something older.
fn curl_line(kv: &Client, session: &Session) -> anyhow::Result<()> {
    let route = kv.route(ORDERS)?;
    let map = kv.map();
    let shard = map.shards().iter().find(|shard| shard.name == route.shard);
    let idx = shard.context("the map names the shard")?.idx;
    let position = session.position(idx).unwrap_or(Position::ZERO);
    let node = route.replicas.first().unwrap_or(&route.primary);
    println!(
        "from curl: curl -i -H 'Kv-Min-Position: {position}' -H 'Kv-Wait-Ms: 1000' 'http://{node}/kv?key=sessions:%7Bada%7D:orders'"
    );
    Ok(())
}
