//! Values as JSON: what comes back, and what a value of another kind is called.

mod support;

use std::collections::BTreeMap;

use kvclient::ErrorKind;
use support::{Cluster, found};

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct User {
    name: String,
    visits: u64,
}

fn ada(visits: u64) -> User {
    let name = "Ada".into();
    User { name, visits }
}

#[tokio::test]
async fn values_come_back() {
    let cluster = Cluster::start(1, 0).await;
    let kv = cluster.client();
    assert_eq!(kv.get_json::<User>("user:1").await.unwrap(), None);
    kv.put_json("user:1", &ada(1)).await.unwrap();
    assert_eq!(kv.get_json("user:1").await.unwrap(), Some(ada(1)));
    assert_eq!(
        kv.get("user:1").await.unwrap().as_deref(),
        Some(&br#"{"name":"Ada","visits":1}"#[..])
    );
    let visit = |user: Option<User>| user.map(|user| ada(user.visits + 1));
    assert!(kv.update_json("user:1", visit).await.unwrap().is_some());
    assert_eq!(kv.get_json("user:1").await.unwrap(), Some(ada(2)));
    assert_eq!(kv.update_json("user:2", visit).await.unwrap(), None);
}

#[tokio::test]
async fn another_kind_of_value_is_named() {
    let cluster = Cluster::start(1, 0).await;
    cluster.primary(0).script(|_| found("{\"name\":7}", 3));
    let kv = cluster.client();
    let read = kv.get_json::<User>("user:1").await.unwrap_err();
    let same = |user: Option<User>| user;
    let updated = kv.update_json("user:1", same).await.unwrap_err();
    for error in [read, updated] {
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        for part in ["\"user:1\"", "User", "1.3", "invalid type"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_json_is_not_stored() {
    let cluster = Cluster::start(1, 0).await;
    let by_bytes = BTreeMap::from([(vec![1_u8], 2)]);
    let kv = cluster.client();
    let error = kv.put_json("k", &by_bytes).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("\"k\""), "{error}");
    assert!(cluster.primary(0).ops().is_empty());
}
