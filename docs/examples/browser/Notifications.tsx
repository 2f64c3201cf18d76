import { useEffect, useState } from "react";
import { listen, type Events } from "./events";

type Notification = Events["notification"];

export function Notifications({ url }: { url: string }) {
  const [items, setItems] = useState([] as Notification[]);

  useEffect(() => {
    const source = new EventSource(url);
    listen(source, "notification", (item) => setItems((items) => [...items, item]));
    return () => source.close();
  }, [url]);

  return (
    <ul>
      {items.map((item) => (
        <li key={item.id}>{item.text}</li>
      ))}
    </ul>
  );
}
