/** The name of the subprotocol. */
export declare const SUBPROTOCOL: "stateroom.resume.1";

export type Status = "connecting" | "open" | "waiting" | "closed";

export interface ResumingSocketOptions {
  /** Messages that are kept until they are acknowledged. Default 1000. */
  maxMessages?: number;
  /** Bytes of those. Default 1 MiB. */
  maxBytes?: number;
  /** Milliseconds before the first attempt to connect again. Default 250. */
  minDelay?: number;
  /** The longest time between two attempts, in milliseconds. Default 15000. */
  maxDelay?: number;
  /** In place of the global one. */
  WebSocket?: typeof WebSocket;
}

/** A connection to a room that outlives its WebSockets. */
export declare class ResumingSocket {
  constructor(url: string | URL, options?: ResumingSocketOptions);
  /** Called once, when the first session has begun. */
  onopen: (() => void) | null;
  /** Called for each message of the room, exactly once and in order. */
  onmessage: ((message: { data: string | ArrayBuffer }) => void) | null;
  /** Called when it has ended for good. */
  onclose: ((end: { code: number; reason: string }) => void) | null;
  /** Called with the new status. */
  onstatus: ((status: Status) => void) | null;
  /** Called when the session was lost and another one begins. */
  onlost: (() => void) | null;
  readonly status: Status;
  /** How many messages were not acknowledged yet. */
  readonly unacknowledged: number;
  /** Sends a message, now or later; false if too much is not acknowledged, or it is closed. */
  send(data: string | ArrayBuffer | ArrayBufferView): boolean;
  /** Leaves the room. */
  close(): void;
}
