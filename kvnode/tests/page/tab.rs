//! A tab of the browser with the page in it: what is seen there, and what a person can do.

use serde_json::{Value, json};

use super::browser::Browser;
use crate::support::eventually;

/// How wide and in which light a person looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Desktop,
    DesktopAtNight,
    Phone,
    PhoneAtNight,
}

/// One tab.
pub(crate) struct Tab<'a> {
    browser: &'a Browser,
    session: String,
}

impl<'a> Tab<'a> {
    /// An empty tab; `before` is a script that runs before those of any page.
    pub(crate) fn new(browser: &'a Browser, before: &str) -> Self {
        // A window of its own: a tab behind another is hidden, and then the page rests.
        let target = json!({ "url": "about:blank", "newWindow": true });
        let target = browser.order("", "Target.createTarget", target);
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.order("", "Target.attachToTarget", attach);
        let session = session["sessionId"].as_str().expect("an id").to_owned();
        let tab = Self { browser, session };
        for domain in ["Page", "Runtime", "Log"] {
            tab.order(&format!("{domain}.enable"), json!({}));
        }
        let script = json!({ "source": before });
        tab.order("Page.addScriptToEvaluateOnNewDocument", script);
        tab.look(Look::Desktop);
        tab
    }

    /// Opens an address and waits until the page has shown the cluster.
    pub(crate) async fn open(&self, url: &str) {
        self.visit(url);
        self.until("document.querySelector('#nodes .node .pill')")
            .await;
    }

    /// Opens an address and waits for nothing.
    pub(crate) fn visit(&self, url: &str) {
        self.order("Page.navigate", json!({ "url": url }));
    }

    /// Looks at it in another way.
    pub(crate) fn look(&self, look: Look) {
        let is_phone = matches!(look, Look::Phone | Look::PhoneAtNight);
        let is_night = matches!(look, Look::DesktopAtNight | Look::PhoneAtNight);
        let (width, height) = if is_phone { (360, 740) } else { (1280, 900) };
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone,
        });
        self.order("Emulation.setDeviceMetricsOverride", size);
        let scheme = if is_night { "dark" } else { "light" };
        let media = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.order("Emulation.setEmulatedMedia", json!({ "features": [media] }));
    }

    /// The page from its head down, as base64 of a PNG.
    pub(crate) fn picture(&self) -> String {
        self.value("scrollTo({ top: 0, behavior: 'instant' })");
        let size =
            "Math.min(document.documentElement.scrollHeight, innerWidth < 500 ? 1600 : 1500)";
        let (width, height) = (self.value("innerWidth"), self.value(size));
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let order = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let taken = self.order("Page.captureScreenshot", order);
        taken["data"].as_str().expect("base64").to_owned()
    }

    /// The value of an expression; panics if it throws.
    pub(crate) fn value(&self, expression: &str) -> Value {
        let value = self.value_unless_it_leaves(expression);
        value.unwrap_or_else(|| panic!("{expression}: the page was left meanwhile"))
    }

    /// The same; `None` if the tab goes to another page before it has one.
    fn value_unless_it_leaves(&self, expression: &str) -> Option<Value> {
        let order = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
        });
        let evaluated = self
            .browser
            .try_order(&self.session, "Runtime.evaluate", order);
        let answer = match evaluated {
            Ok(answer) => answer,
            Err(error) if error.to_string().contains("navigated") => return None,
            Err(error) => panic!("{expression}: {error}"),
        };
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        Some(answer["result"]["value"].clone())
    }

    /// Whether an expression is something.
    pub(crate) fn holds(&self, expression: &str) -> bool {
        self.value(&format!("!!({expression})")) == true
    }

    /// Waits until an expression is something.
    pub(crate) async fn until(&self, expression: &str) {
        let reason = format!("the page has {expression}");
        eventually(&reason, async || {
            let is_so = format!("!!(document.body && ({expression}))");
            (self.value_unless_it_leaves(&is_so)? == true).then_some(())
        })
        .await;
    }

    /// Waits until an element shows a text, among others.
    pub(crate) async fn until_shown(&self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.until(&format!(
            "[...document.querySelectorAll({selector})].some(node => node.textContent.includes({text}))"
        ))
        .await;
    }

    /// The text of the first element that is meant.
    pub(crate) fn text(&self, selector: &str) -> String {
        let text = self.value(&format!(
            "document.querySelector({}).textContent",
            json!(selector)
        ));
        text.as_str().expect("a text").to_owned()
    }

    /// Waits for an element and clicks on it.
    pub(crate) async fn click(&self, selector: &str) {
        let selector = json!(selector);
        self.until(&format!("document.querySelector({selector})"))
            .await;
        self.value(&format!("document.querySelector({selector}).click()"));
    }

    /// Clicks on the first of such elements that shows a text.
    pub(crate) async fn click_text(&self, selector: &str, text: &str) {
        let found = format!(
            "[...document.querySelectorAll({})].find(node => node.textContent.trim() === {})",
            json!(selector),
            json!(text)
        );
        self.until(&found).await;
        self.value(&format!("{found}.click()"));
    }

    /// Waits for a field and writes this into it instead of what is there.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        let selector = json!(selector);
        self.until(&format!("document.querySelector({selector})"))
            .await;
        self.value(&format!("document.querySelector({selector}).select()"));
        self.value(&format!("document.querySelector({selector}).focus()"));
        match text.is_empty() {
            true => self.press("Delete", 0),
            false => self.type_in(text),
        }
    }

    /// Types where the focus is.
    pub(crate) fn type_in(&self, text: &str) {
        self.order("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key; `modifiers` as the protocol counts them: 2 is control, 8 is shift.
    pub(crate) fn press(&self, key: &str, modifiers: u32) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            "Escape" => (27, ""),
            "Delete" => (46, ""),
            "ArrowDown" => (40, ""),
            " " => (32, " "),
            other => panic!("{other} is not known here"),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let key = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
                "text": text, "modifiers": modifiers,
            });
            self.order("Input.dispatchKeyEvent", key);
        }
    }

    /// Errors of scripts and what the policy forbade, and of the network too if `network` says which to keep.
    pub(crate) fn errors(&self, network: impl Fn(&str) -> bool) -> Vec<String> {
        let is_error = |method: &str, said: &Value| match method {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => said["type"] == "error",
            "Log.entryAdded" => match said["entry"]["source"].as_str() {
                Some("network") => network(said["entry"]["url"].as_str().unwrap_or_default()),
                _ => said["entry"]["level"] == "error",
            },
            _ => false,
        };
        // An order of its own, so that all said so far has arrived.
        self.value("0");
        let events = self.browser.events(&self.session);
        let errors = events
            .into_iter()
            .filter(|(method, said)| is_error(method, said));
        errors.map(|(_, said)| said.to_string()).collect()
    }

    /// Errors of scripts and what the policy forbade.
    pub(crate) fn assert_no_errors(&self) {
        assert_eq!(self.errors(|_| false), Vec::<String>::new());
    }

    fn order(&self, method: &str, parameters: Value) -> Value {
        self.browser.order(&self.session, method, parameters)
    }
}

/// The page of a node.
pub(crate) fn page(address: &str) -> String {
    format!("http://{address}/")
}

/// The page of a node with a key opened; the key is percent-escaped already.
pub(crate) fn page_of_key(address: &str, key: &str) -> String {
    format!("http://{address}/#key={key}")
}
