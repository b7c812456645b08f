import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import javax.jms.*;

/** Read FACTORY URL QUEUE COUNT: prints each message's kind, and its body in hexadecimal. */
public class Read {
    public static void main(String[] args) throws Exception {
        var factory = (ConnectionFactory)
            Class.forName(args[0]).getConstructor(String.class).newInstance(args[1]);
        Connection connection = factory.createConnection();
        connection.start();
        Session session = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
        MessageConsumer consumer = session.createConsumer(session.createQueue(args[2]));
        for (int left = Integer.parseInt(args[3]); left > 0; left--) {
            Message message = consumer.receive(30_000);
            if (message == null) throw new RuntimeException("no message within 30 s");
            System.out.println(kind(message) + " " + HexFormat.of().formatHex(body(message)));
        }
        connection.close();
    }

    private static String kind(Message message) {
        if (message instanceof TextMessage) return "text";
        return message instanceof BytesMessage ? "bytes" : message.getClass().getName();
    }

    private static byte[] body(Message message) throws JMSException {
        if (message instanceof TextMessage text) {
            return text.getText().getBytes(StandardCharsets.UTF_8);
        }
        BytesMessage bytes = (BytesMessage) message;
        byte[] body = new byte[(int) bytes.getBodyLength()];
        bytes.readBytes(body);
        return body;
    }
}
