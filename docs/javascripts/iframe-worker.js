// The search of the site in a browser that opened it from the file system, where a page may not start a worker.
// The script of the worker runs in a hidden frame instead, with the same messages in both directions.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.queued = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      const inner = this.frame.contentWindow;
      inner.postMessage = (data) => this.receive("message", { data });
      inner.onerror = (message) => this.receive("error", { message });
      const script = inner.document.createElement("script");
      script.src = new URL(url, location.href);
      script.onload = () => {
        const queued = this.queued;
        this.queued = null;
        queued.forEach((data) => this.postMessage(data));
      };
      script.onerror = () => this.receive("error", { message: "cannot load " + url });
      inner.document.documentElement.append(script);
    }

    postMessage(data) {
      if (this.queued) {
        this.queued.push(data);
      } else {
        setTimeout(() => this.frame.contentWindow?.dispatchEvent(new MessageEvent("message", { data })));
      }
    }

    receive(type, members) {
      setTimeout(() => {
        const event = Object.assign(new Event(type), members);
        this["on" + type]?.(event);
        this.dispatchEvent(event);
      });
    }

    terminate() {
      this.frame.remove();
    }
  };
}
