// The events of the application: their types, and the data of each.
export interface Events {
  notification: { id: number; text: string };
  progress: { page: number; pages: number };
}

export function listen<Type extends keyof Events>(
  source: EventSource,
  type: Type,
  listener: (data: Events[Type]) => void,
): void {
  source.addEventListener(type, (event: MessageEvent<string>) => {
    listener(JSON.parse(event.data) as Events[Type]);
  });
}
