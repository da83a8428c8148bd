//! Values of a type of one's own, stored as JSON. Feature `json`.
//!
//! Three methods next to those for bytes, rather than a client of typed values: most programs store more than one
//! type, and what these do not cover (conditions, many keys, scans) is one call of `serde_json` away.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    client::Client,
    entry::{Entry, Written, checked},
    error::{Error, ErrorKind, Result},
    options::{GetOptions, PutOptions},
    update::Rounds,
};

impl Client {
    /// Reads a value that is JSON; `None` if the key is absent or has expired. Needs feature `json`.
    ///
    /// ```no_run
    /// # async fn json(kv: kvclient::Client) -> kvclient::Result<()> {
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct User {
    ///     name: String,
    ///     visits: u64,
    /// }
    ///
    /// let ada = User { name: "Ada".into(), visits: 1 };
    /// kv.put_json("user:1", &ada).await?;
    /// let ada: Option<User> = kv.get_json("user:1").await?;
    /// kv.update_json("user:1", |user: Option<User>| {
    ///     let mut user = user?; // leave it absent
    ///     user.visits += 1;
    ///     Some(user)
    /// })
    /// .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`]; also [`ErrorKind::Corrupt`], naming key and type, if the value is not JSON of this type.
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn get_json<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        let key = key.as_ref();
        let entry = self.get_with(key, GetOptions::new()).await?;
        entry
            .map(|entry| decode("get_json", key, &entry))
            .transpose()
    }

    /// Stores a value as JSON, as [`Self::put`] stores bytes. Needs feature `json`.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// #[derive(serde::Serialize)]
    /// struct Point {
    ///     x: f64,
    ///     y: f64,
    /// }
    ///
    /// kv.put_json("home", &Point { x: 10.7, y: 59.9 }).await?;
    /// kv.put_json("limits", &serde_json::json!({ "tries": 5, "minutes": 10 })).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::put`]; also [`ErrorKind::Invalid`] if the value cannot be JSON, such as a map whose keys are no text.
    ///
    /// # Cancel safety
    /// As [`Self::put`].
    pub async fn put_json<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
    ) -> Result<Written> {
        let key = key.as_ref();
        let value = encode("put_json", key, value)?;
        self.put(key, value).await
    }

    /// Changes a value that is JSON by what it is, as [`Self::update`] does with bytes. Needs feature `json`.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// kv.update_json("queue", |queue: Option<Vec<String>>| {
    ///     let mut queue = queue.unwrap_or_default();
    ///     queue.push("job 12".to_owned());
    ///     (queue.len() <= 100).then_some(queue) // full: leave it as it is
    /// })
    /// .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::update`], [`Self::get_json`] and [`Self::put_json`].
    ///
    /// # Cancel safety
    /// As [`Self::update`].
    pub async fn update_json<T: DeserializeOwned + Serialize>(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<Written>> {
        let key = key.as_ref();
        let mut rounds = Rounds::new(self, key, PutOptions::new())?;
        loop {
            let entry = rounds.read().await?;
            let decoded = entry
                .as_ref()
                .map(|entry| decode("update_json", key, entry));
            let Some(new) = change(decoded.transpose()?) else {
                return Ok(None);
            };
            let new = encode("update_json", key, &new)?;
            if let Some(written) = rounds.store(entry.as_ref(), new.into()).await? {
                return Ok(Some(written));
            }
        }
    }
}

fn decode<T: DeserializeOwned>(op: &'static str, key: &[u8], entry: &Entry) -> Result<T> {
    serde_json::from_slice(&entry.value).map_err(|problem| {
        let (at, wanted) = (entry.position, std::any::type_name::<T>());
        let problem = format!("the value written at {at} is no {wanted}: {problem}");
        about(ErrorKind::Corrupt, op, key).with_source(problem)
    })
}

fn encode<T: Serialize + ?Sized>(op: &'static str, key: &[u8], value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|problem| {
        let given = std::any::type_name::<T>();
        let problem = format!("a {given} cannot be JSON: {problem}");
        about(ErrorKind::Invalid, op, key).with_source(problem)
    })
}

fn about(kind: ErrorKind, op: &'static str, key: &[u8]) -> Error {
    match checked(key, op) {
        Ok(key) => Error::new(kind, op).with_key(key),
        Err(error) => error,
    }
}
