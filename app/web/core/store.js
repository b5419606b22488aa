/* Drafts of data sets, kept in the browser (IndexedDB): they survive a reload.

   save(id, state)            keep what Points.state() gives
   load(id)                   {state, blobs: Map key -> Blob}; null where there is none
   putFile(id, key, blob), removeFile(id, key)
   drop(id)                   forget a draft and its files
   Where the browser keeps nothing (a private window), all do nothing and give null.

   choice(name), choose(name, value)   a choice of the user, by name; null where there is none

   const keeper = autosave(points, id) write the draft after each change of a Points
     .lost()                  what is not kept, as a sentence; null where all is
     await .written()         once what has changed is written
     await .stop()            write nothing more */

/* A choice of the user that outlasts the page, where the browser keeps anything. */
export function choice(name) {
  try {
    return localStorage.getItem(`sapnet-${name}`);
  } catch {
    return null;
  }
}

export function choose(name, value) {
  try {
    localStorage.setItem(`sapnet-${name}`, value);
  } catch {
    // it lasts as long as the page, then
  }
}

const request = (operation) =>
  new Promise((resolve, reject) => {
    operation.onsuccess = () => resolve(operation.result);
    operation.onerror = () => reject(operation.error);
  });

let opened = null;

function database() {
  opened ??= (async () => {
    const operation = indexedDB.open("sapnet", 1);
    operation.onupgradeneeded = () => {
      operation.result.createObjectStore("drafts");
      operation.result.createObjectStore("files");
    };
    return request(operation);
  })();
  return opened;
}

async function within(mode, work) {
  try {
    const transaction = (await database()).transaction(["drafts", "files"], mode);
    const ended = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error); // a full disk is reported only here
    });
    ended.catch(() => {}); // where the work itself throws before
    const result = await work(transaction.objectStore("drafts"), transaction.objectStore("files"));
    await ended;
    return result;
  } catch (error) {
    console.warn("The draft is not kept:", error);
    return null;
  }
}

const filesOf = (id) => IDBKeyRange.bound([id], [id, []]);

export const save = (id, state) => within("readwrite", (drafts) => request(drafts.put(state, id)));

export const putFile = (id, key, blob) => within("readwrite", (_, files) => request(files.put(blob, [id, key])));

export const removeFile = (id, key) => within("readwrite", (_, files) => request(files.delete([id, key])));

export const drop = (id) =>
  within("readwrite", async (drafts, files) => {
    drafts.delete(id);
    await request(files.delete(filesOf(id)));
  });

export const load = (id) =>
  within("readonly", async (drafts, files) => {
    const [state, keys, values] = await Promise.all([request(drafts.get(id)), request(files.getAllKeys(filesOf(id))), request(files.getAll(filesOf(id)))]);
    return state ? { state, blobs: new Map(keys.map(([, key], i) => [key, values[i]])) } : null;
  });

/* While one change is being written, the next waits for it. */
export function autosave(points, id) {
  let [dirty, failed, stopped, writing] = [false, false, false, null];
  const storedKeys = new Set(points.images.map((image) => image.key));

  async function files() {
    for (const { key, blob } of points.images) {
      if (stopped) return true;
      if (blob && !storedKeys.has(key) && (await putFile(id, key, blob)) === null) return false;
      storedKeys.add(key);
    }
    for (const key of [...storedKeys]) {
      if (stopped || points.images.some((image) => image.key === key)) continue;
      if ((await removeFile(id, key)) === null) return false;
      storedKeys.delete(key);
    }
    return true;
  }

  async function write() {
    while (dirty && !stopped) {
      dirty = false;
      const whole = await files();
      if (!stopped) failed = (await save(id, points.state())) === null || !whole;
    }
    writing = null;
  }

  points.addEventListener("change", () => {
    dirty = true;
    writing ??= write();
  });
  return {
    lost: () => (!stopped && (writing || failed) ? "The draft is not kept by this browser: its changes would be lost." : null),
    written: async () => void (await writing),
    stop: async () => {
      stopped = true;
      await writing;
    },
  };
}
