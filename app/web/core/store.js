/* Drafts of data sets, kept in the browser (IndexedDB): they survive a reload.

   save(id, state)            keep what Points.state() gives
   load(id)                   {state, blobs: Map key -> Blob}; null where there is none
   putFile(id, key, blob), removeFile(id, key)
   drop(id)                   forget a draft and its files
   Where the browser keeps nothing (a private window), all do nothing. */

const request = (asked) =>
  new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });

let opened = null;

function database() {
  opened ??= (async () => {
    const asked = indexedDB.open("sapnet", 1);
    asked.onupgradeneeded = () => {
      asked.result.createObjectStore("drafts");
      asked.result.createObjectStore("files");
    };
    return request(asked);
  })();
  return opened;
}

async function within(mode, work) {
  try {
    const transaction = (await database()).transaction(["drafts", "files"], mode);
    return await work(transaction.objectStore("drafts"), transaction.objectStore("files"));
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
